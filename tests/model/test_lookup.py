"""Look-ups by hashes of the last units: what they hash, where it lands, and that a document sees its own past alone."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import KNOWN, Pack, known_keys, pack, random_pack, small_config, small_model, with_known, with_lookups
from torch import Tensor

from aunet.config import AUNetConfig, LookupConfig
from aunet.model.aunet import AUNet
from aunet.model.layout import build_layout
from aunet.model.lookup import BASE, UNKNOWN, Lookup, key_of, lookup_rows, salt, signed

DEPTHS = [1, 2, 3, 4]


def rows(config: AUNetConfig, packed: Pack) -> list[Tensor]:
    layouts = build_layout(packed.levels, packed.starts, packed.counts, config.offsets)
    found = lookup_rows(AUNet(config).lookups, packed.ids, layouts)
    return [row for row in found if row is not None]


def expected_rows(config: AUNetConfig, packed: Pack) -> list[list[list[int]]]:
    """The definition, unit by unit: the ids of the last n units of the document, Horner's rule, the row."""
    found: list[list[list[int]]] = []
    for s, stage in enumerate(config.stages):
        assert stage.lookup is not None
        found.append([])
        for start, end in itertools.pairwise(packed.starts.tolist()):
            ids, levels = packed.ids[start:end].tolist(), packed.levels[start:end].tolist()
            ends = [t + 1 for t, level in enumerate(levels) if level >= s]
            for j, last in enumerate(ends):
                row = []
                for table, n in enumerate(stage.lookup.ngrams):
                    value = 0
                    for one in ids[0 if j < n else ends[j - n] : last]:
                        value = (value * BASE + one + 1) % 2**64
                    buckets = stage.lookup.buckets
                    row.append(table * buckets + int(key_of(torch.tensor([signed(value)]), salt(s, n))) % buckets)
                found[-1].append(row)
    return found


@settings(max_examples=60, deadline=None)
@given(
    stages=st.sampled_from(DEPTHS),
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    deepen=st.sampled_from([0.0, 0.4, 0.9, 1.0]),
    seed=st.integers(0, 2**31),
)
def test_rows_are_those_of_the_definition(stages: int, lengths: list[int], deepen: float, seed: int) -> None:
    config, packed = with_lookups(small_config(stages)), random_pack(stages - 1, lengths, seed, deepen)
    assert [row.tolist() for row in rows(config, packed)] == expected_rows(config, packed)


def test_ngrams_spread_over_their_buckets() -> None:
    """Neighbouring letters fill as many buckets as chance would have them fill, in every table in another way."""
    lookup = {"ngrams": (2, 3, 5), "buckets": 1000}
    config = AUNetConfig.model_validate({"stages": [{"dim": 8, "layers": 1, "head_dim": 8, "lookup": lookup}]})
    letters = torch.randint(97, 109, (3000,), generator=torch.Generator().manual_seed(0))
    packed = pack([letters], [torch.zeros(3000, dtype=torch.uint8)], [letters], 0)
    places = rows(config, packed)[0] - torch.tensor([0, 1000, 2000])
    assert 0 <= places.min() <= places.max() < 1000
    for column, n in enumerate((2, 3, 5)):
        distinct = len(letters.unfold(0, n, 1).unique(dim=0))
        filled = len(places[n:, column].unique())
        assert abs(filled - 1000 * (1 - (1 - 1 / 1000) ** distinct)) < 40
    for a, b in [(0, 1), (1, 2), (0, 2)]:
        assert (places[:, a] == places[:, b]).float().mean() < 0.01


def test_the_longest_ngram_is_seen() -> None:
    """The counterpart: without blocks, a byte that is five back reaches a position by the look-up alone."""
    stage = {"dim": 16, "layers": 0, "head_dim": 4, "lookup": {"ngrams": [2, 6], "buckets": 1000}}
    model, packed = small_model(AUNetConfig.model_validate({"stages": [stage]})), random_pack(0, [30])
    ids = packed.ids.clone()
    ids[10] = (ids[10] + 1) % 258
    changed = (model(ids, *packed.inputs[1:]) - model(*packed.inputs)).abs().amax(1) > 1e-4
    assert changed.nonzero().flatten().tolist() == [10, 11, 12, 13, 14, 15]


@pytest.mark.parametrize("stages", DEPTHS)
def test_an_untrained_lookup_adds_nothing(stages: int) -> None:
    config, packed = small_config(stages), random_pack(stages - 1, [20, 5])
    plain, looked_up = AUNet(config), AUNet(with_lookups(config))
    plain.initialise(3)
    looked_up.initialise(3)
    assert torch.equal(plain(*packed.inputs), looked_up(*packed.inputs))


@pytest.mark.parametrize("stages", DEPTHS)
def test_rows_that_were_read_learn(stages: int) -> None:
    config, packed = with_lookups(small_config(stages)), random_pack(stages - 1, [60, 50])
    model = small_model(config)
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()
    for s, read_TN in enumerate(rows(config, packed)):
        lookup = model.lookup(s)
        assert lookup is not None
        assert lookup.weight.grad is not None
        assert torch.equal(lookup.weight.grad.abs().amax(1).nonzero().flatten(), read_TN.unique())


# Known n-grams


@pytest.mark.parametrize("stages", DEPTHS)
def test_only_known_ngrams_have_rows(stages: int) -> None:
    """Each its own, that of its place among the sorted keys; by the definition, unit by unit."""
    config = with_known(small_config(stages))
    model, packed = small_model(config), random_pack(stages - 1, [40, 30, 1], deepen=0.7)
    packed.ids[::2] = packed.ids[::2] // 3 * 3 % 256 + 2  # so that much is known, and not all
    layouts = build_layout(packed.levels, packed.starts, packed.counts, config.offsets)
    for s, found_TN in enumerate(lookup_rows(model.lookups, packed.ids, layouts)):
        keys, expected = sorted(known_keys(s).tolist()), []
        for start, end in itertools.pairwise(packed.starts.tolist()):
            ids, levels = packed.ids[start:end].tolist(), packed.levels[start:end].tolist()
            ends = [t + 1 for t, level in enumerate(levels) if level >= s]
            for j, last in enumerate(ends):
                texts = [ids[0 if j < n else ends[j - n] : last] for n in (1, 2)]
                for n, text in zip((1, 2), texts, strict=True):
                    known = set(text) <= set(KNOWN) and len(text) in ((1, 2) if s and n == 1 else (n,))
                    value = signed(sum((one + 1) * BASE**i for i, one in enumerate(reversed(text))) % 2**64)
                    key = int(key_of(torch.tensor([value]), salt(s, n)))
                    expected.append(1 + keys.index(key) if known else UNKNOWN)
        assert found_TN is not None
        assert found_TN.flatten().tolist() == expected
        assert UNKNOWN in expected
        assert max(expected) > 0


def test_what_is_unknown_adds_nothing_and_learns_nothing() -> None:
    model, packed = small_model(with_known(small_config(2))), random_pack(1, [60, 50])
    model.loss(packed.ids, packed.targets, *packed.inputs[1:]).backward()
    for lookup in model.lookups:
        assert lookup is not None
        assert lookup.weight.grad is not None
        assert lookup.weight[UNKNOWN].abs().max() > 0
        assert lookup.weight.grad[UNKNOWN].abs().max() == 0
        assert lookup.weight.grad.abs().max() > 0
    before = model(*packed.inputs)
    with torch.no_grad():
        for lookup in model.lookups:
            assert lookup is not None
            lookup.weight[UNKNOWN] += 1
    assert torch.equal(model(*packed.inputs), before)


def test_a_lookup_that_knows_nothing_yet_is_silent() -> None:
    config, packed = small_config(2), random_pack(1, [20, 5])
    plain, known = AUNet(config), AUNet(with_known(config))
    plain.initialise(3)
    known.initialise(3)
    with torch.no_grad():
        for lookup in known.lookups:
            assert lookup is not None
            lookup.weight += 1
    assert torch.equal(plain(*packed.inputs), known(*packed.inputs))


def test_as_many_ngrams_as_there_are_rows_but_one() -> None:
    lookup = Lookup(LookupConfig(ngrams=(1,), buckets=4, known=True), 2)
    lookup.know(torch.tensor([70, 5, 3]))
    assert lookup.rows(torch.tensor([[3], [4], [5], [70], [71]])).flatten().tolist() == [1, 0, 2, 3, 0]
    lookup.know(torch.tensor([9]))
    assert lookup.rows(torch.tensor([[3], [9]])).flatten().tolist() == [0, 1]
