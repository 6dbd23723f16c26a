"""The configuration: ours under the one key `aunet` of config.json, beside the keys of `transformers`."""

from collections.abc import Mapping
from os import PathLike
from typing import Any, ClassVar

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from aunet import __version__
from aunet.bytes import BOS, EOS, VOCAB_SIZE
from aunet.config import AUNetConfig as Architecture
from aunet.errors import AUNetError
from aunet.model.directory import validate_saved

PAD = VOCAB_SIZE
"""Fills rows up to one length; outside the model's ids, so no text and no prediction can be taken for it."""


@strict(accept_kwargs=True)
class AUNetConfig(PreTrainedConfig):
    """`aunet`: the architecture, an `aunet.AUNetConfig` or its JSON values.

    AUNetError for a configuration of another kind of model, of a version that cannot be read, or of other ids than
    bytes.
    """

    model_type: ClassVar[str] = "aunet"
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["cache"]

    aunet: Any = None
    aunet_version: str = __version__
    bos_token_id: int = BOS
    eos_token_id: int = EOS
    pad_token_id: int = PAD

    def __post_init__(self, **kwargs: Any) -> None:
        name = kwargs.get("name_or_path")
        architecture = _architecture(
            self.aunet, str(self.aunet_version), f"{name}/config.json: aunet" if name else "aunet"
        )
        self.aunet, self.aunet_version = architecture.model_dump(mode="json"), __version__
        super().__post_init__(**kwargs)

    @property
    def architecture(self) -> Architecture:
        """The typed form of `aunet`."""
        return Architecture.model_validate(self.aunet)

    @property
    def vocab_size(self) -> int:
        """Ids that the model reads and predicts: the bytes, BOS and EOS."""
        return VOCAB_SIZE

    @property
    def hidden_size(self) -> int:
        """Width of the byte stage."""
        return self.architecture.stages[0].dim

    def validate_token_ids(self) -> None:
        """The ids of the marks are those of the bytes' vocabulary, and padding is none of them."""
        given = (self.bos_token_id, self.eos_token_id, self.pad_token_id)
        if given != (BOS, EOS, PAD):
            raise AUNetError(f"bos, eos and pad_token_id: {BOS}, {EOS} and {PAD}, not {given}; leave them out")

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The values of a config.json that is of this kind of model."""
        values, unused = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if values.get("model_type") != cls.model_type:
            raise AUNetError(
                f"{pretrained_model_name_or_path}: a model of type {values.get('model_type')!r}, not 'aunet'; "
                "AutoModelForCausalLM and AutoTokenizer load other types"
            )
        values.setdefault("name_or_path", str(pretrained_model_name_or_path))
        return values, unused


def _architecture(values: Any, version: str, origin: str) -> Architecture:
    """The typed architecture of a model of bytes."""
    if not isinstance(values, Mapping | Architecture):
        raise AUNetError(f"{origin}: the architecture is missing; give aunet=aunet.AUNetConfig(...)")
    architecture = values if isinstance(values, Architecture) else validate_saved(values, version, origin)
    if architecture.unit != "byte":
        raise AUNetError(
            f"{origin}.vocab_size: a model of bytes has {VOCAB_SIZE} ids, not {architecture.vocab_size}; only such a "
            "model can be a model of transformers, one over tokens runs with aunet.load and the aunet command"
        )
    return architecture
