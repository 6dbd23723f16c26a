"""Autoregressive U-Nets: language models that read raw bytes and build their own units (arXiv 2506.14761).

>>> import aunet
>>> aunet.splitter("word1").levels(b"two words").tolist()
[0, 0, 0, 1, 0, 0, 0, 0, 0]
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from aunet.config import AUNetConfig, StageConfig
    from aunet.language_model import LanguageModel
    from aunet.splitting import splitter

__version__ = "0.1.0"
__all__ = ["AUNetConfig", "LanguageModel", "StageConfig", "__version__", "load", "splitter"]


def load(
    path: "str | Path", device: "str | torch.device" = "cpu", weights: str = "fp32", native: bool | None = None
) -> "LanguageModel":
    """Read a model directory, such as `train.out` of a run; see `LanguageModel.load`."""
    from aunet.language_model import LanguageModel

    return LanguageModel.load(path, device, weights, native)


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import aunet` costs nothing."""
    if name == "splitter":
        from aunet.splitting import splitter

        return splitter
    if name == "LanguageModel":
        from aunet.language_model import LanguageModel

        return LanguageModel
    if name in ("AUNetConfig", "StageConfig"):
        from aunet import config

        return getattr(config, name)
    raise AttributeError(f"module 'aunet' has no attribute {name!r}")
