"""Small tokenizers and models over their tokens."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from aunet.config import AUNetConfig
from aunet.language_model import LanguageModel
from aunet.vocabulary import Tokens
from aunet.vocabulary.training import train_tokenizer
from tests.model.packs import small_model

TEXTS = (
    "The cat and the dog were under the house by the river.\n\nThe other cat, 1234 years old, was there too.\r\n",
    "Naïve 東京の朝 and the naïve cafés of 東京: \tthe rivers, the houses, the dogs; it's theirs, we'll see 5678!\n",
)


def trained(size: int = 320, texts: Sequence[str] = TEXTS) -> str:
    """The content of a tokenizer.json."""
    return train_tokenizer([text.encode() for text in texts for _ in range(3)], size)


@cache
def tokens(size: int = 320) -> Tokens:
    return Tokens(trained(size), "tokenizer.json")


@cache
def tokenizer_file(size: int = 320) -> Path:
    path = Path(mkdtemp()) / "tokenizer.json"
    path.write_text(trained(size), encoding="utf-8")
    return path


def token_config(**more: Any) -> AUNetConfig:
    """One small stage over tokens."""
    stage = {"dim": 16, "layers": 2, "head_dim": 4, "kv_heads": 2}
    return AUNetConfig.model_validate(
        {"stages": [stage], "vocab_size": tokens().size, "tokenizer": str(tokenizer_file()), **more}
    )


@cache
def token_model(seed: int = 1, **more: Any) -> LanguageModel:
    return LanguageModel(small_model(token_config(**more), seed=seed))
