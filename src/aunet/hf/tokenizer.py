"""A tokenizer that has nothing to learn: the id of a byte is its value.

>>> tokenizer = AUNetTokenizer()
>>> tokenizer("é")["input_ids"], tokenizer(b"\\xff")["input_ids"]
([256, 195, 169], [256, 255])
>>> tokenizer.decode_bytes([256, 195, 169, 255])
b'\\xc3\\xa9\\xff'
"""

from typing import Any

import numpy as np
from transformers import AddedToken, BatchEncoding, PreTrainedTokenizer
from transformers.utils.generic import to_py_obj

from aunet.bytes import BOS, EOS, decode, to_bytes
from aunet.errors import AUNetError
from aunet.hf.config import PAD

MARKS = {BOS: "<|bos|>", EOS: "<|eos|>", PAD: "<|pad|>"}
"""How document marks and padding are shown; in a text that is encoded these strings are bytes like all others."""


class AUNetTokenizer(PreTrainedTokenizer):
    """Texts to ids and back.

    A text is str or bytes. Every str gives its UTF-8 bytes, behind BOS. Bytes that are not UTF-8 round-trip exactly in
    two ways: as bytes (`tokenizer(data)`, `encode_bytes`, `decode_bytes`), or as a str with `surrogateescape`, which
    encoding always understands and decoding gives with `errors="surrogateescape"`. By default decoding shows them as
    U+FFFD, because a str with escapes cannot be printed.

    Call options beside those of every tokenizer: `add_eos=True` ends each text with EOS, as documents do that a model
    is trained on; a text that is cut by `max_length` has not ended and gets none.
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(self, errors: str = "replace", **kwargs: Any) -> None:
        self.errors = _checked(errors)
        marks = {i: AddedToken(name, normalized=False, special=True) for i, name in MARKS.items()}
        # Whatever a directory says: the marks are part of the model, and no text can spell one.
        kwargs |= {
            "added_tokens_decoder": marks,
            "bos_token": marks[BOS],
            "eos_token": marks[EOS],
            "pad_token": marks[PAD],
            "split_special_tokens": True,
            "special_tokens_pattern": "bos",
        }
        super().__init__(errors=errors, **kwargs)

    @property
    def vocab_size(self) -> int:
        """The 256 bytes; with the marks and padding the length is 259."""
        return 256

    def get_vocab(self) -> dict[str, int]:
        """Bytes by the character of the same number, marks by their names."""
        return {chr(i): i for i in range(256)} | {name: i for i, name in MARKS.items()}

    def encode_bytes(self, data: bytes, add_special_tokens: bool = True) -> list[int]:
        """Any bytes as ids, behind BOS."""
        return [BOS, *data] if add_special_tokens else list(data)

    def decode_bytes(self, token_ids: Any) -> bytes:
        """Exactly the bytes among ids; marks and padding are dropped."""
        return _spelled(token_ids, skip_marks=True)

    def __setattr__(self, key: str, value: Any) -> None:
        # A name without an id breaks padding, and keeps what is saved from being loaded.
        if key in (*self.SPECIAL_TOKENS_ATTRIBUTES, "extra_special_tokens") and value is not None:
            _require_marks(value)
        super().__setattr__(key, value)

    def add_special_tokens(self, special_tokens_dict: Any, *arguments: Any, **options: Any) -> int:
        """0, as the marks are there already; AUNetError for anything else, before the library notes it."""
        for value in special_tokens_dict.values():
            _require_marks(value)
        return super().add_special_tokens(special_tokens_dict, *arguments, **options)

    def _add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        _require_marks(new_tokens)
        return 0

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """There is none."""
        return ()

    def _encode_plus(self, text: Any, text_pair: Any = None, add_eos: bool = False, **kwargs: Any) -> BatchEncoding:
        # Lists of ids are taken as they are, which saves three function calls for every byte.
        words = bool(kwargs.get("is_split_into_words"))
        return super()._encode_plus(_to_ids(text, add_eos, words), _to_ids(text_pair, add_eos, words), **kwargs)

    def _tokenize(self, text: Any, **_: Any) -> list[str]:
        return [chr(byte) for byte in text_bytes(text)]

    def _convert_token_to_id(self, token: str) -> int | None:
        return ord(token) if len(token) == 1 and ord(token) < 256 else None

    def _convert_id_to_token(self, index: int) -> str:
        if not 0 <= index <= PAD:
            raise AUNetError(f"token_ids: {index} is not from 0 to {PAD}")
        return MARKS.get(index, chr(index))

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """The text of byte tokens; marks are spelled out."""
        return b"".join(token.encode("latin-1" if len(token) == 1 else "utf-8") for token in tokens).decode(
            errors=self.errors
        )

    def _decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        errors: str | None = None,
        **_: Any,
    ) -> str:
        # Nothing is ever cleaned up: spaces are bytes of the text.
        return _spelled(token_ids, skip_special_tokens).decode(errors=_checked(errors or self.errors))


def text_bytes(text: str | bytes) -> bytes:
    """Bytes of a text; escapes of `surrogateescape` are the bytes they stand for.

    >>> text_bytes("a\\udcff")
    b'a\\xff'
    """
    if isinstance(text, bytes):
        return text
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates that escape no byte
        return to_bytes(text)


def _require_marks(tokens: Any) -> None:
    """AUNetError for a token, or some of several, that is none of the marks."""
    given = map(str, tokens if isinstance(tokens, list | tuple) else [tokens])
    if new := [token for token in given if token not in MARKS.values()]:
        raise AUNetError(
            f"add_tokens: {new} would have no place; the vocabulary is the bytes and {', '.join(MARKS.values())}"
        )


def _checked(errors: str) -> str:
    if errors not in ("replace", "surrogateescape"):
        raise AUNetError(f"errors: {errors!r} is neither 'replace' (U+FFFD, printable) nor 'surrogateescape' (exact)")
    return errors


def _to_ids(text: Any, add_eos: bool, words: bool) -> Any:
    """Texts as lists of ids, also inside lists of texts; what is none is left to the caller."""
    if isinstance(text, str | bytes):
        ids = [*text_bytes(text), EOS] if add_eos else list(text_bytes(text))
        return ids or ""
    if (
        isinstance(text, list | tuple)
        and not words
        and any(isinstance(one, str | bytes | list | tuple) for one in text)
    ):
        return [_to_ids(one, add_eos, words) for one in text]
    return text


def _spelled(token_ids: Any, skip_marks: bool) -> bytes:
    """The bytes of the ids of one text."""
    ids = np.atleast_1d(np.asarray(to_py_obj(token_ids)))
    if ids.size and (ids.ndim != 1 or ids.dtype.kind not in "iu"):
        raise AUNetError(f"token_ids: expected the ids of one text, not {ids.dtype} of {list(ids.shape)}")
    if ids.size and not 0 <= ids.min() <= ids.max() <= PAD:
        raise AUNetError(f"token_ids: every id must be from 0 to {PAD}, not {ids.min()} to {ids.max()}")
    if skip_marks or not ids.size or ids.max() < BOS:
        return decode(ids)
    return b"".join(MARKS[i].encode() if i in MARKS else bytes([i]) for i in ids.tolist())
