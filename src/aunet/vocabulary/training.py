"""Learning a byte-level BPE from a text (Sennrich et al. 2016, on bytes as in GPT-2), by the library `tokenizers`.

A text is cut before it is merged, so that no token crosses a word: a word takes one character before it that is no
letter, mostly its space; digits come in groups of at most 3; other characters come together, with the space before and
the line ends behind them; of several spaces the last goes with what follows. English clitics ('s, 'll) stand alone.
Letters take their combining marks with them, without which words of many scripts fall apart.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from aunet.errors import ConfigError, MissingExtra
from aunet.vocabulary.tokens import MARKS, stretches

CUTS = "|".join(
    (
        r"['\u2019](?:[dmst]|ll|re|ve)(?![\p{L}\p{M}])",
        r"[^\r\n\p{L}\p{M}\p{N}]?[\p{L}\p{M}]+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""What stays together at most."""
SMALLEST = 256
"""Tokens of the bytes themselves."""
LARGEST = (1 << 24) - MARKS
"""Tokens of the largest model; the library sets memory aside for as many as it is asked for."""
RAREST = 2
"""Times that a pair must occur to become a token."""


def train_tokenizer(documents: Iterable[bytes], size: int) -> str:
    """The content of a tokenizer.json with `size` tokens, fewer where the text has not so many pairs that repeat.

    The same documents give the same file. Bytes that are not UTF-8 are left out; they have tokens of their own anyway.
    """
    if size < SMALLEST:
        raise ConfigError(f"--vocab-size: {size} is below {SMALLEST}; every byte needs a token of its own")
    if size > LARGEST:
        raise ConfigError(f"--vocab-size: {size} is above {LARGEST}, and no model has more; lower it")
    try:
        from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError:
        raise MissingExtra("tokenizers", "bpe", "training a tokenizer") from None
    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CUTS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=RAREST,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_valid(documents), trainer)
    return str(tokenizer.to_str(pretty=True))


def _valid(documents: Iterable[bytes]) -> Iterator[str]:
    return (part for data in documents for part in stretches(data) if isinstance(part, str))
