"""Known n-grams are the most frequent ones of the text that training reads first."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aunet.config import DataConfig, RunConfig, SourceConfig, TrainConfig
from aunet.data.batch import collate
from aunet.data.loader import Loader
from aunet.data.rows import Row
from aunet.model.aunet import AUNet
from aunet.model.lookup import NOBODY, key_of, salt, signed
from aunet.splitting import splitter
from aunet.train.distributed import ALONE
from aunet.train.ngrams import Tally, count_ngrams, know_ngrams
from tests.model.packs import small_config, with_known
from tests.runs import aunet, here, losses, write_config, write_text

# Few distinct values in each sixteenth of all keys, so that they come again.
KEYS = st.builds(lambda high, low: (high << 59) + low, st.integers(0, 15), st.integers(0, 5))


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.lists(KEYS, max_size=60), max_size=5), size=st.integers(1, 40))
def test_a_tally_is_a_counter(parts: list[list[int]], size: int) -> None:
    tally = Tally()
    for part in parts:
        tally.add(torch.tensor(part, dtype=torch.int64).view(-1, 1))
    counts = Counter(key for part in parts for key in part)
    expected = sorted(counts, key=lambda key: (-counts[key], key))[:size]
    assert tally.most_frequent(size).tolist() == expected


def config_of(directory: Path, sample: float) -> RunConfig:
    path = write_text(directory / "train.jsonl", 300)
    return RunConfig(
        model=with_known(small_config(2, splitter="word1")),
        data=DataConfig(sources=(SourceConfig(path=str(path)),), seq_len=256, workers=0),
        train=TrainConfig(lookup_sample=sample),
    )


def test_ngrams_of_text_are_counted_at_every_stage(tmp_path: Path) -> None:
    """Against strings: n-grams of the words and the bytes of the very rows, by a counter."""
    config = config_of(tmp_path, 20_000)
    with Loader(config.data, splitter("word1")) as loader:
        rows: list[Row] = []
        while sum(row.bytes for row in rows) < 20_000:
            rows += loader.next_rows(1)
    batch = collate(rows)
    counts: list[Counter[tuple[int, tuple[int, ...]]]] = [Counter(), Counter()]
    for start, end in pairwise(batch.starts.tolist()):
        ids, levels = batch.ids[start:end].tolist(), batch.levels[start:end].tolist()
        for s in range(2):
            ends = [0, *(t + 1 for t, level in enumerate(levels) if level >= s)]
            for j in range(1, len(ends)):
                for n in (1, 2):
                    counts[s][n, tuple(ids[ends[max(0, j - n)] : ends[j]])] += 1
    found = count_ngrams(config, {0: 40, 1: 15})
    for s, size in enumerate((40, 15)):
        least = sorted(counts[s].values())[-size]
        keys = {}
        for (n, text), count in counts[s].items():
            value = 0
            for one in text:
                value = (value * 0x9E6C63D0876A9A99 + one + 1) % 2**64
            keys[int(key_of(torch.tensor([signed(value)]), salt(s, n)))] = count
        chosen = found[s].tolist()
        assert len(set(chosen)) == size
        assert min(keys[key] for key in chosen) == least
        assert {key for key, count in keys.items() if count > least} <= set(chosen)


def test_a_short_text_leaves_rows_to_nobody(tmp_path: Path) -> None:
    config = config_of(tmp_path, 1000)
    model, said = AUNet(config.model), list[str]()
    model.initialise(0)
    know_ngrams(model, config, ALONE, said.append)
    for s, lookup in enumerate(model.lookups):
        assert lookup is not None
        assert lookup.keys is not None
        filled = int((lookup.keys < NOBODY).sum())
        assert 10 < filled < len(lookup.keys)
        assert torch.equal(lookup.keys, lookup.keys.sort().values)
        assert f"stage {s + 1} knows {filled:,} n-grams" in said[s]


def test_a_run_counts_once_and_its_models_know(tmp_path: Path) -> None:
    """A run that goes on, a run that starts from its weights and a copy of them know what it has counted."""
    lookups = [f"model.stages.{s}.lookup={{ngrams: [1, 2], buckets: 200, known: true}}" for s in range(2)]
    line = ("train", write_config(tmp_path), *lookups, "train.lookup_sample=2e4")
    whole, again, tuned = (f"train.out={tmp_path / name}" for name in ("whole", "again", "tuned"))
    result = aunet(*line, whole)
    assert result.returncode == 0, result.stderr
    assert "stage 2 knows 399 n-grams of 20,000 bytes" in result.stdout
    assert losses(tmp_path / "whole")[-1][1] < losses(tmp_path / "whole")[0][1] - 0.3
    assert here(*line, again, "train.steps=6").returncode == 0
    result = here(*line, again, "train.lookup_sample=1e3")
    assert result.returncode == 0, result.stderr
    assert "resuming after step 6" in result.stdout
    assert "knows" not in result.stdout
    result = here(*line, tuned, f"train.init_from={tmp_path / 'whole'}", "train.steps=1")
    assert result.returncode == 0, result.stderr
    assert "knows" not in result.stdout
    result = here("eval", tmp_path / "tuned", tmp_path / "valid.jsonl")
    assert result.returncode == 0, result.stderr
