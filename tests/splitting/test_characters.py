from unittest import mock

import numpy as np
import pytest
import regex
from byte_strings import odd_bytes
from hypothesis import given
from hypothesis import strategies as st

from aunet.splitting import characters
from aunet.splitting.characters import Char, classify, utf8_table


def expected_class(character: str) -> Char:
    """The class by the patterns that the published rules use."""
    if character in "\r\n":
        return Char.LINE_END
    if character == " ":
        return Char.SPACE
    for pattern, char in ((r"\p{L}", Char.LETTER), (r"\p{N}", Char.DIGIT), (r"\s", Char.BLANK)):
        if regex.fullmatch(pattern, character):
            return char
    return Char.OTHER


def expected_classes(data: bytes) -> list[Char]:
    """By Python's own decoder: a byte that it refuses after those before it is looked at alone."""
    classes = []
    pending = b""
    for byte in data:
        for candidate in (pending + bytes([byte]), bytes([byte])):
            try:
                char = expected_class(candidate.decode())
                pending = b""
                break
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    char = Char.NONE
                    pending = candidate
                    break
        else:
            char = Char.OTHER
            pending = b""
        classes.append(char)
    return classes


@given(odd_bytes)
def test_equals_python_s_decoder(data: bytes) -> None:
    assert classify(data, 0, len(data)).tolist() == expected_classes(data)


@given(odd_bytes)
def test_walking_the_table_equals_gathering(data: bytes) -> None:
    cells, row, walked = utf8_table().cells, 0, []
    for byte in data:
        entry = cells[row | byte]
        walked.append(entry & characters.CLASS_BITS)
        row = entry & ~255
    assert walked == classify(data, 0, len(data)).tolist()


@given(odd_bytes, st.data())
def test_a_block_sees_what_stands_before_it(data: bytes, draw: st.DataObject) -> None:
    start = draw.draw(st.integers(0, len(data)))
    stop = draw.draw(st.integers(start, len(data)))
    whole = classify(data, 0, len(data))
    assert classify(data, start, stop).tolist() == whole[start:stop].tolist()


def test_every_code_point_is_one_character_at_its_last_byte() -> None:
    points = [*range(0xD800), *range(0xE000, 0x110000)]
    text = "".join(map(chr, points))
    data = text.encode()
    classes = classify(data, 0, len(data))
    first = np.frombuffer(data, dtype=np.uint8) & 0xC0 != 0x80
    last = np.append(first[1:], True)
    assert (classes[~last] == Char.NONE).all()
    assert (classes[last] != Char.NONE).all()
    sample = [*range(0x3100), *range(0xD700, len(points), 97)]
    assert classes[last][sample].tolist() == [expected_class(text[i]) for i in sample]


def test_the_table_is_small_and_read_only() -> None:
    table = utf8_table()
    assert len(table.flat) < 500 * 256
    with pytest.raises(ValueError, match="read-only"):
        table.flat[0] = 1


def test_the_table_is_built_once() -> None:
    utf8_table()
    with mock.patch.object(characters, "_classes_of_code_points", side_effect=AssertionError("built twice")):
        assert utf8_table() is utf8_table()
