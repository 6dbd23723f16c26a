"""The cached cascade against the full forward pass, at every byte."""

import copy
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from aunet.bytes import BOS
from aunet.config import AUNetConfig
from aunet.infer import eager
from aunet.infer.eager import Sight, lay_out_for_reading
from aunet.infer.native.kernels import NativeKernels
from aunet.infer.session import Session
from aunet.infer.state import Context
from aunet.splitting import splitter
from tests.model.packs import RULES, small_config, small_model, with_known, with_layers_up, with_lookups, with_qk_norm

TOLERANCE = 1e-4
TEXTS = [
    b"One two, three 1234567 four!? " * 3 + b"\nFive.\r\n\r\nsix",
    b"a" * 70 + b" " + b"b" * 40,  # words longer than twice the offsets of the published model
    b"nosplitatall" * 6,  # not a single split
    bytes(range(256)),
    "naïve 漢字 – é\n".encode() * 4,
    b"",
]
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "repeat": {"upsampling": "repeat"},
    "simple": {"upsampling": "simple"},
    "offsets-16": {"offsets": 16},
    "unwindowed": {"windows": (None, None, None, None)},
    "narrow": {"windows": (7, 5, 3, 3)},
    "wide": {"windows": (32, 32, 32, 32)},
    "one-head": {"kv_heads": 1},
    "lookups": {"change": with_lookups},
    "known": {"change": with_known},
    "qk-norm": {"change": with_qk_norm},
    "layers-up": {"change": with_layers_up},
}
CASES = [
    *((depth, RULES[depth - 1], shape) for depth in (1, 2, 3, 4) for shape in SHAPES),
    (2, "fixed-4", "narrow"),
    (2, "pretok", "plain"),
    (2, "fixed-1", "plain"),
]


KERNELS = "eager"
"""What `session` reads with; the fixture sets it."""


@pytest.fixture(autouse=True)
def _kernels(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "KERNELS", kernels)


def session(stages: int, rule: str, shape: str) -> Session:
    """A small model with this many stages; a shape may set its windows and key/value heads too."""
    return _session(stages, rule, shape, KERNELS == "native")


@cache
def _session(stages: int, rule: str, shape: str, native: bool) -> Session:
    more = dict(SHAPES[shape])
    windows, kv_heads, change = (more.pop(key, None) for key in ("windows", "kv_heads", "change"))
    values = small_config(stages, splitter=rule, **more).model_dump(mode="json")
    for s, stage in enumerate(values["stages"]):
        stage["window"] = windows[s] if windows else stage["window"]
        stage["kv_heads"] = kv_heads or stage["kv_heads"]
        stage["contraction"] = 0
    config = AUNetConfig.model_validate(values)
    config = change(config) if change else config
    network = small_model(config).eval()
    return Session(network, splitter(rule), NativeKernels(network) if native else None)


@torch.no_grad()
@cache
def in_doubles(stages: int, rule: str, shape: str) -> Session:
    """The same model in double precision."""
    model = _session(stages, rule, shape, False)
    return Session(copy.deepcopy(model.model).double(), model.splitter)


def uncut(session: Session, data: bytes) -> Tensor:
    """Logits after BOS and after each byte, by one forward pass over the whole text: [n + 1, V]."""
    levels = np.concatenate([[session.splitter.depth], session.splitter.levels(data)]).astype(np.uint8)
    counts = [int((levels >= s).sum()) for s in range(session.splitter.depth + 1)]
    ids = torch.tensor([BOS, *data])
    return session.model(ids, torch.from_numpy(levels), torch.tensor([0, len(ids)]), counts)


def read(session: Session, texts: Sequence[bytes], cuts: Sequence[Sequence[int]]) -> list[Tensor]:
    """Logits of a batch that is read in pieces: `cuts` has, per round, how many ids each sequence reads."""
    state = session.start(len(texts))
    waiting = [[BOS, *text] for text in texts]
    found: list[list[Tensor]] = [[] for _ in texts]
    rounds = [*cuts, [len(ids) for ids in waiting]]
    for sizes in rounds:
        taken = [ids[:n] for ids, n in zip(waiting, sizes, strict=True)]
        waiting = [ids[n:] for ids, n in zip(waiting, sizes, strict=True)]
        for rows, logits in zip(found, session.extend(state, taken), strict=True):
            rows.append(logits)
    return [torch.cat(rows) for rows in found]


def close(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and (a.numel() == 0 or float((a - b).abs().max()) < TOLERANCE)


@pytest.mark.parametrize(("stages", "rule", "shape"), CASES)
def test_byte_by_byte_after_prompts_of_different_lengths(stages: int, rule: str, shape: str) -> None:
    model = session(stages, rule, shape)
    texts = TEXTS[:1] + TEXTS[3:5] if shape != "plain" else TEXTS
    prompts = [min(n, len(text) + 1) for n, text in zip((1, 37, 4, 19, 2, 1), texts, strict=False)]
    steps = [[1] * len(texts)] * 60
    for text, logits in zip(texts, read(model, texts, [prompts, *steps]), strict=True):
        assert close(logits, uncut(model, text))


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_one_sequence_byte_by_byte_from_nothing(stages: int, text: bytes) -> None:
    model = session(stages, RULES[stages - 1], "narrow")
    assert close(read(model, [text], [[1]] * len(text))[0], uncut(model, text))


@pytest.mark.parametrize("stages", [2, 4])
def test_every_end_of_a_prompt(stages: int) -> None:
    # Offsets wrap after 16: a prompt may end at any of them.
    model = session(stages, RULES[stages - 1], "offsets-16")
    text = b"abc " + b"d" * 40 + b" e f, "
    whole = uncut(model, text)
    state = model.start(len(text))
    prompts = [[BOS, *text[:n]] for n in range(len(text))]
    assert all(close(rows, whole[: len(rows)]) for rows in model.extend(state, prompts))
    assert close(model.step(state, list(text)), whole[1:])


@pytest.mark.parametrize("batch", [1, 2])
def test_angles_behind_the_table_are_computed(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr("aunet.infer.eager.TABLE", 10)
    model = session(2, "word1", "plain")
    fresh = Session(model.model, model.splitter)
    texts = [TEXTS[0], TEXTS[3]][:batch]
    for text, logits in zip(texts, read(fresh, texts, [[3, 1][:batch], *[[1] * batch] * 40]), strict=True):
        assert close(logits, uncut(model, text))


pieces = st.lists(st.sampled_from([b"a", b"word ", b"x" * 35, b" ", b"7", b", ", b"\n", "é漢".encode(), b"\x80\xff"]))
documents = st.one_of(st.binary(max_size=60), pieces.map(b"".join).map(lambda data: data[:160]))
cuts = st.lists(st.lists(st.integers(0, 40), min_size=3, max_size=3), max_size=12)


@pytest.mark.parametrize(("stages", "rule", "shape"), [case for case in CASES if case[2] in ("plain", "narrow")])
@settings(max_examples=12, deadline=None)
@given(texts=st.lists(documents, min_size=3, max_size=3), cuts=cuts, batch=st.sampled_from([1, 3]))
def test_any_text_cut_anywhere(
    stages: int, rule: str, shape: str, texts: list[bytes], cuts: list[list[int]], batch: int
) -> None:
    model = session(stages, rule, shape)
    texts = texts[:batch]
    for text, logits in zip(texts, read(model, texts, [sizes[:batch] for sizes in cuts]), strict=True):
        whole = uncut(model, text)
        # Now and then a text makes a tiny vector, which a norm blows up together with what rounding left of it. Then
        # the forward pass itself is not known to the tolerance; `test_a_text_that_rounding_blows_up` has such a text.
        assume(float((whole - uncut(in_doubles(stages, rule, shape), text)).abs().max()) < TOLERANCE / 4)
        assert close(logits, whole)


@pytest.mark.parametrize("sizes", [[], [[1]] * 30, [[3], [7], [1], [2]]])
def test_a_text_that_rounding_blows_up(sizes: list[list[int]]) -> None:
    text = b"aword  a\x80\xffa\n a\xc3\xa9\xe6\xbc\xa2\naa\x80\xff\n"
    model = in_doubles(4, RULES[3], "narrow")
    assert float((read(model, [text], sizes)[0] - uncut(model, text)).abs().max()) < 1e-9


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_sequences_in_a_batch_do_not_see_each_other(stages: int) -> None:
    model = session(stages, RULES[stages - 1], "plain")
    # The second has no split: read after the first, a leak would give it the first one's vector.
    texts = [b"One two three. ", b"nosplitatall", b"7 8"]
    together = read(model, texts, [[9, 4, 1], [1, 1, 1], [0, 3, 0]])
    for text, logits in zip(texts, together, strict=True):
        assert close(logits, read(model, [text], [])[0])
    other = read(model, [b"Quite another!!", texts[1], b""], [[9, 4, 1], [1, 1, 0], [0, 3, 0]])
    assert close(other[1], together[1])


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_a_copy_is_independent(stages: int) -> None:
    model = session(stages, RULES[stages - 1], "narrow")
    texts = [b"One two three four five six 123 ", b"seven"]
    ends = [b"a b c! dd ", b"Other words, others."]
    state = model.start(2)
    model.extend(state, [[BOS, *text] for text in texts])
    copy = state.copy([1, 0, 0])
    first = model.extend(state, [list(ends[0]), list(ends[1])])
    second = model.extend(copy, [list(ends[1]), list(ends[1]), list(ends[0])])
    for text, end, logits in [
        (texts[0], ends[0], first[0]),
        (texts[1], ends[1], first[1]),
        (texts[1], ends[1], second[0]),
        (texts[0], ends[1], second[1]),
        (texts[0], ends[0], second[2]),
    ]:
        assert close(logits, uncut(model, text + end)[-len(end) :])


def test_a_deeper_stage_runs_only_for_complete_units(monkeypatch: pytest.MonkeyPatch) -> None:
    model = session(4, RULES[3], "plain")
    runs: list[tuple[int, int]] = []
    original = model.kernels.read

    def counted(contexts: Sequence[Context], *rest: Any) -> tuple[Tensor, list[Tensor]]:
        logits_TV, outputs = original(contexts, *rest)
        runs.extend((s, output.shape[0]) for s, output in enumerate(outputs))
        return logits_TV, outputs

    monkeypatch.setattr(model.kernels, "read", counted)
    text = b"one two three four five. "
    state = model.start(2)
    model.extend(state, [[BOS], [BOS]])
    levels = model.splitter.levels(text)
    assert set(levels.tolist()) == {0, 1, 2, 3}
    for byte, level in zip(text, levels, strict=True):
        # Only the first sequence reads: the other one costs nothing at any stage.
        runs.clear()
        model.extend(state, [[byte], []])
        assert runs == [(s, 1) for s in range(level + 1)]
    runs.clear()
    model.step(state, list(b"ab"))
    assert runs == [(0, 2)]


def test_no_uninitialised_memory_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda *args, **more: make(*args, **more).fill_(float("nan"))

    model = session(3, RULES[2], "wide")
    texts = [b"One two three. " * 10, b"", b"four 5"]
    whole = [uncut(model, text) for text in texts]
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    # The long one grows every cache past its first capacity while the others are far behind.
    for expected, logits in zip(whole, read(model, texts, [[60, 1, 3], *[[1, 0, 1]] * 70]), strict=True):
        assert close(logits, expected)


def test_nothing_to_read_gives_nothing() -> None:
    model = session(2, "word1", "plain")
    state = model.start(2)
    assert [tuple(rows.shape) for rows in model.extend(state, [[], []])] == [(0, 258)] * 2
    assert [tuple(rows.shape) for rows in model.extend(state, [[BOS], []])] == [(1, 258), (0, 258)]
    assert model.extend(state, [[], []])[0].dtype == model.extend(state, [[], [BOS]])[0].dtype == torch.float32


def test_the_layout_for_reading_keeps_values_and_parameters() -> None:
    model = small_model(small_config(3))
    names = dict(model.named_parameters())
    before = {name: parameter.clone() for name, parameter in names.items()}
    assert lay_out_for_reading(model) is model
    for name, parameter in model.named_parameters():
        assert parameter is names[name]
        assert torch.equal(parameter, before[name])
    assert model.trunk.blocks[0].ffn.down.weight.stride() == (1, 32)


@pytest.mark.parametrize("upsampling", ["multilinear", "repeat", "simple"])
def test_half_precision_is_near_the_forward_pass(upsampling: str) -> None:
    network = small_model(small_config(3, upsampling=upsampling), dtype=torch.bfloat16)
    half = Session(network.eval(), splitter(RULES[2]))
    texts = [TEXTS[0], b"four 5"]
    for text, logits in zip(texts, read(half, texts, [[7, 1], *[[1, 1]] * 8, [3, 0]]), strict=True):
        expected = uncut(half, text)
        assert logits.dtype == torch.bfloat16
        assert (logits.float() - expected.float()).abs().mean() < 0.02 * expected.float().std()


def test_what_new_positions_see_is_worked_out_once_for_all_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    config = AUNetConfig.model_validate({"stages": [{"dim": 16, "layers": 3, "head_dim": 8}]})
    session, made = Session(small_model(config), splitter("")), list[Sight]()

    def counted(*parts: Any) -> Sight:
        made.append(Sight(*parts))
        return made[-1]

    monkeypatch.setattr(eager, "Sight", counted)
    session.step(session.start(2), [BOS, BOS])
    assert len(made) == 1
