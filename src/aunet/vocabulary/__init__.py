"""What the ids of a model stand for: bytes, or the tokens of a `tokenizer.json`.

>>> BYTES.encode("né".encode()).tolist(), BYTES.decode([110, 195, 169])
([110, 195, 169], b'n\\xc3\\xa9')
"""

from pathlib import Path

from aunet.config import AUNetConfig
from aunet.errors import ConfigError
from aunet.vocabulary.protocol import BYTES, Bytes, Ids, Vocabulary
from aunet.vocabulary.tokens import Tokens

__all__ = ["BYTES", "Bytes", "Ids", "Tokens", "Vocabulary", "vocabulary"]


def vocabulary(config: AUNetConfig) -> Vocabulary:
    """What the ids of a model stand for; ConfigError for a tokenizer that cannot be used or has other ids."""
    if not config.tokenizer:
        return BYTES
    tokens = Tokens.load(Path(config.tokenizer))
    if tokens.size != config.vocab_size:
        raise ConfigError(
            f"model.vocab_size: is {config.vocab_size}, but {config.tokenizer} has {tokens.size - 2} tokens, which "
            f"makes {tokens.size} ids with BOS and EOS; set it to {tokens.size}"
        )
    return tokens
