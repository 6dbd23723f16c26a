"""Tokens of a Hugging Face `tokenizer.json`, as ids that give the bytes of every text back exactly.

Byte-level BPE alone can do that: it has a token for each of the 256 bytes. Valid UTF-8 is segmented by the tokenizer;
a byte that is not part of valid UTF-8 becomes its own token. Texts are texts: what is spelled like an added token
("<|endoftext|>") is segmented like everything else, and templates, truncation and dropout of the file are left out.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.vocabulary.protocol import Ids
from aunet.vocabulary.words import words_of

MARKS = 2
"""BOS and EOS, behind the tokens."""
SHOWN = 40
"""Bytes of a document that an error shows."""
PROBES = (
    "It's  the 1234567th *test*,\tno?\r\n\r\n  Yes!   ",
    "word",
    " word",
    "\n\n",
    "ÀÉ naïve a\u0301e\u0308 \ufb01 \uff21 \u2126 \u00bd ﷺ \u1e9b\u0323",
    "Привет, 東京の朝。한국어 ภาษาไทย हिन्दी العربية",
    "👩‍👩‍👧 🇪🇺 \ufe0f \u200b\u200d \u00a0\u2028\u3000 \x00\x01\x7f",
    "<|endoftext|><s></s>[CLS]<unk>▁Ġ<0x0A>",
)
"""Texts on which a tokenizer shows what it changes: case, spaces, accents, widths, marks, controls."""


class Tokens:
    """The vocabulary of a byte-level BPE."""

    unit: Literal["byte", "token"] = "token"

    def __init__(self, text: str, origin: str) -> None:
        """`text`: the content of a tokenizer.json; `origin` names it in errors.

        ConfigError, one line, for what is no such file or does not give bytes back exactly.
        """
        self._text, self._origin = text, origin
        self._spelled = [*_spellings(text, origin), *[b""] * MARKS]
        self._lengths = np.array([len(spelled) for spelled in self._spelled], dtype=np.int64)
        self.size = len(self._spelled)
        self.bos, self.eos = self.size - 2, self.size - 1
        self.digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        ids = {spelled: i for i, spelled in reversed(list(enumerate(self._spelled)))}
        missing = [byte for byte in range(256) if bytes([byte]) not in ids]
        if missing:
            raise self._unfit(f"{len(missing)} of the 256 bytes have no token of their own")
        self._single = [ids[bytes([byte])] for byte in range(256)]
        self._tokenizer = _tokenizer(text, origin)
        words = words_of(json.loads(text), self._tokenizer.model, _LETTERS)
        alike = words is not None and all(words.ids(probe) == self._by_library(probe) for probe in PROBES)
        self._words = words if alike else None
        for probe in (*PROBES, bytes(range(256))):
            data = probe if isinstance(probe, bytes) else probe.encode()
            if self.decode(found := self._ids(data)) != data:
                raise self._unfit(f"{data[:SHOWN]!r} comes back as {self.decode(found)[:SHOWN]!r}")

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Read a tokenizer.json."""
        return cls(_read(path), str(path))

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokens, (self._text, self._origin)

    def encode(self, data: bytes) -> Ids:
        """The canonical segmentation, int32 [n]. AUNetError names a text that it would not give back exactly."""
        ids = self._ids(data)
        if self.decode(ids) != data:
            raise AUNetError(
                f"{self._origin}: does not give back exactly the document that starts with {data[:SHOWN]!r}; "
                "use a byte-level BPE without a normalizer, such as aunet tokenizer train writes"
            )
        return np.array(ids, dtype=np.int32)

    def decode(self, ids: npt.ArrayLike) -> bytes:
        """The bytes that ids stand for; document marks are dropped."""
        return b"".join(map(self._spelled.__getitem__, np.asarray(ids, dtype=np.int64).tolist()))

    def lengths(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """How many bytes each id stands for."""
        return self._lengths[np.asarray(ids, dtype=np.int64)]

    def _ids(self, data: bytes) -> list[int]:
        found: list[int] = []
        for part in stretches(data):
            if isinstance(part, str):
                ids = self._words.ids(part) if self._words else None
                found += self._by_library(part) if ids is None else ids
            else:
                found += [self._single[byte] for byte in part]
        return found

    def _by_library(self, text: str) -> list[int]:
        with _library(self._origin):
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _unfit(self, reason: str) -> ConfigError:
        return ConfigError(
            f"{self._origin}: does not give bytes back exactly ({reason}); "
            "use a byte-level BPE without a normalizer, such as aunet tokenizer train writes"
        )


def stretches(data: bytes) -> Iterator[str | bytes]:
    """A text cut into its stretches of valid UTF-8, as str, and of bytes that are not, as bytes.

    >>> list(stretches(b"a\\xff\\xfeb"))
    ['a', b'\\xff\\xfe', 'b']
    """
    for part in re.split("([\udc80-\udcff]+)", data.decode(errors="surrogateescape")):
        if part:
            yield part.encode(errors="surrogateescape") if "\udc80" <= part[0] <= "\udcff" else part


def tokenizer_size(path: Path) -> int:
    """Number of tokens of a tokenizer.json; a model of them has two ids more, BOS and EOS."""
    return len(_spellings(_read(path), str(path)))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(f"{path}: cannot be read ({reason}); name a tokenizer.json") from None


def _tokenizer(text: str, origin: str) -> Any:
    """The segmentation alone, as an object of the library."""
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingExtra("tokenizers", "bpe", "a model over tokens") from None
    values = json.loads(text)
    values |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    values["model"]["dropout"] = None
    with _library(origin):
        return Tokenizer.from_str(json.dumps(values))


@contextmanager
def _library(origin: str) -> Iterator[None]:
    """ConfigError for what the library raises: Exception itself, and where it panics, a class that is none."""
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ConfigError(f"{origin}: cannot be read by tokenizers ({' '.join(str(error).split())[:120]})") from None


def _spellings(text: str, origin: str) -> list[bytes]:
    """The bytes of every token, by its id."""
    try:
        values = json.loads(text)
        model = values["model"]
        kind, named = model.get("type", "BPE"), model["vocab"]
        spelled = {i: _bytes_of(token) for token, i in named.items()} if isinstance(named, dict) else {}
        spelled |= {token["id"]: token["content"].encode() for token in values.get("added_tokens") or ()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"[:120]
        raise ConfigError(f"{origin}: not a tokenizer.json of Hugging Face ({reason})") from None
    if kind != "BPE" or not isinstance(named, dict):
        raise ConfigError(f"{origin}: a tokenizer of the kind {kind}; only byte-level BPE gives bytes back exactly")
    if model.get("continuing_subword_prefix"):  # the library may panic on it, which is no Exception
        raise ConfigError(f"{origin}: has a continuing_subword_prefix; only byte-level BPE gives bytes back exactly")
    numbers = all(type(i) is int for i in spelled)
    if not numbers or sorted(spelled) != list(range(len(spelled))) or not all(spelled.values()):
        raise ConfigError(f"{origin}: its ids are not 0 to {len(spelled) - 1}, or one of them stands for nothing")
    return [spelled[i] for i in range(len(spelled))]


def _bytes_of(token: str) -> bytes:
    """The bytes of a token in the alphabet of byte-level BPE; a name that is not spelled in it, as UTF-8."""
    try:
        return bytes(map(_BYTE_OF.__getitem__, token))
    except KeyError:
        return token.encode(errors="replace")


def _alphabet() -> dict[str, int]:
    """Byte of each character of the alphabet: printable Latin-1 stands for itself, the others are moved behind it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    moved = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(moved)}


_BYTE_OF = _alphabet()
_LETTERS = {byte: letter for letter, byte in _BYTE_OF.items()}
