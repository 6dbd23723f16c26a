import time
from unittest import mock

import numpy as np
import pytest
from byte_strings import RUNS, TRICKY, text_like
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.splitting import pairs, splitter
from aunet.splitting.characters import Char
from aunet.splitting.pairs import Action, PairRule

RULES = ["word1", "word2", "word1+word2+word4", "word1+word3+word9", "word2+word3", "word1+word1", "pretok"]


def streamed(rule: str, data: bytes) -> list[int]:
    stream = splitter(rule).stream()
    return [stream.push(byte) for byte in data]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("block", [1, 3, 7, 64])
@given(data=text_like)
@settings(max_examples=25)
def test_blocks_join_without_a_trace(rule: str, block: int, data: bytes) -> None:
    whole = splitter(rule).levels(data).tolist()
    with mock.patch.object(pairs, "BLOCK", block):
        assert splitter(rule).levels(data).tolist() == whole


@pytest.mark.parametrize("rule", RULES)
def test_documents_of_several_blocks_equal_the_stream(rule: str) -> None:
    rng = np.random.default_rng(0)
    pieces = [*TRICKY, *RUNS, b"other ", b"x" * 1000, b"7" * 1000, b"." * 1000, b" " * 100]
    data = b"".join(pieces[i] for i in rng.integers(len(pieces), size=6000))
    assert len(data) > 3 * pairs.BLOCK
    assert splitter(rule).levels(data).tolist() == streamed(rule, data)


@pytest.mark.parametrize("unit", [b"7", b".", b"a", b"\xff", b" ", b"\n", b"a b ", "漢".encode(), b"\xe2\x82"])
@pytest.mark.parametrize("rule", ["word1+word2+word4", "pretok"])
def test_one_unit_over_several_blocks_equals_the_stream(rule: str, unit: bytes) -> None:
    data = unit * (150_001 // len(unit))
    assert splitter(rule).levels(data).tolist() == streamed(rule, data)


@pytest.mark.parametrize("unit", [b"a", b" ", b"7", b".", b"a b ", b"\n", b"\xff", "漢".encode(), b" \n", b"a. "])
@pytest.mark.parametrize("rule", ["word1+word2+word4", "pretok"])
def test_time_grows_with_length_alone(rule: str, unit: bytes) -> None:
    def seconds(size: int) -> float:
        data, best = unit * (size // len(unit)), float("inf")
        for _ in range(5):
            start = time.thread_time()  # what others do on this machine does not count
            splitter(rule).levels(data)
            best = min(best, time.thread_time() - start)
        return best

    # 16 times the bytes: 16 times the time if linear, 256 times if quadratic.
    assert seconds(1 << 20) < 80 * seconds(1 << 16)


@pytest.mark.parametrize("mark", [-1, 256, 257])
def test_a_document_mark_is_no_byte(mark: int) -> None:
    with pytest.raises(ValueError, match=f"{mark} is not a byte"):
        splitter("word1").stream().push(mark)


@given(
    actions=st.lists(st.sampled_from([Action(flags) for flags in range(8)]), min_size=49, max_size=49),
    sizes=st.lists(st.integers(1, 5), min_size=6, max_size=6),
    counts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    data=text_like,
)
@settings(max_examples=200)
def test_any_rule_streams_as_it_splits(actions: list[Action], sizes: list[int], counts: list[int], data: bytes) -> None:
    """Whoever writes a rule gets both forms: also for actions that no rule of ours has."""
    groups = tuple((char, size) for char, size in zip(list(Char)[1:], sizes, strict=True) if size > 1)
    rule = PairRule("any", lambda before, char: actions[before * 7 + char], groups, tuple(counts))
    stream = rule.stream()
    assert rule.levels(data).tolist() == [stream.push(byte) for byte in data]
