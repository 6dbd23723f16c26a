"""Byte strings that splitters meet or fear."""

from hypothesis import strategies as st

CHARACTERS = "a7. \n\r\t\u00e9\u0663\u00a0\u3000\u2028\u6f22\u0e33\u0301\U0001f600\U0001d54f\x00\x1c\x85"
TRICKY = [
    b"\x80",
    b"\xff",
    b"\xc0\xaf",  # overlong
    b"\xc3",  # cut short
    b"\xe0\x80\x80",  # overlong
    b"\xe0\xa0",
    b"\xe2\x82",
    b"\xed\xa0\x80",  # surrogate
    b"\xed\x9f\xbf",
    b"\xf0\x80\x80\x80",  # overlong
    b"\xf0\x9f\x98",
    b"\xf4\x90\x80\x80",  # above U+10FFFF
    b"\xf4\x8f\xbf\xbf",
    b"\xf5\x80",
    *(character.encode() for character in CHARACTERS),
]
LETTERS = [b"a" * 15, b"a" * 17, "漢".encode() * 17, b"word ", b"a b c d ", b" x"]
MARKS = [b"1" * 4, b"12", b"." * 3, b"-" * 7, b"?!", b".\n", b".\r\n\r\n", b"  ", b" \n", b"\n"]
RUNS = LETTERS + MARKS

odd_bytes = st.lists(
    st.one_of(st.sampled_from(TRICKY), st.binary(max_size=4), st.text(max_size=4).map(str.encode))
).map(b"".join)
text_like = st.lists(st.sampled_from(TRICKY + RUNS), max_size=40).map(b"".join)
any_bytes = st.one_of(st.binary(), odd_bytes, text_like, st.text().map(str.encode))
texts = st.text(st.one_of(st.sampled_from(CHARACTERS + "b1- \n"), st.characters(codec="utf-8")))
