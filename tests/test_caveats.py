"""What intervals over documents and a budget without the optimizer leave out, on records that never were."""

import sys
from pathlib import Path

import pytest

import caveats
from aunet.errors import AUNetError
from aunet.model.aunet import AUNet
from aunet.scaling.records import Record, portable, write_record
from tests.scaling.made_records import config, record

NOVELS = [3, 4, 1]


def with_muon(name: str = "muon") -> Record:
    return record(name, config=portable(config(optimizer="muon")))


def test_chapters_of_a_novel_are_drawn_together() -> None:
    """Where one novel differs, and in all of its chapters alike, novels say less than chapters do."""
    base = record("base")
    worse = [(bits * (1.2 if i < NOVELS[0] else 1.0), size) for i, (bits, size) in enumerate(base.documents["valid"])]
    bits = sum(bits for bits, _ in worse) / sum(size for _, size in worse)
    ours = record("ours", bits, documents={"valid": worse})
    first, second = caveats.table([ours, base], NOVELS).rows
    assert first[3] == "1.200 1.000 1.000"
    assert first[2].endswith("(1.000 to 1.200)")
    low, high = (float(bound) for bound in first[1].split("(")[1].rstrip(")").split(" to "))
    assert 1.0 <= low < high < 1.2
    assert second[1:] == ("1.000 (1.000 to 1.000)", "1.000 (1.000 to 1.000)", "1.000 1.000 1.000", "0.0%")


def test_muons_products_are_those_of_newton_schulz() -> None:
    """Five times X Xᵀ, its square, and both with X, for every matrix inside the model, the smaller side first."""
    run = with_muon()
    by_hand = 0
    for parameter in AUNet(config().model).trunk.parameters():
        if parameter.dim() == 2:
            m, n = sorted(parameter.shape)
            by_hand += 5 * (2 * m * m * n + 2 * m * m * m + 2 * m * m * n)
    assert caveats.products_of_a_step(run) == by_hand > 0
    assert caveats.products_of_a_step(record()) == 0
    (row,) = caveats.table([run], NOVELS).rows
    assert row[-1] == f"{by_hand * run.steps / run.compute_flops:.1%}"


def test_a_command_prints_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / f"{name}.json" for name in ("ours", "theirs")]
    for path in paths:
        write_record(path, record(path.stem))
    monkeypatch.setattr(sys, "argv", ["caveats.py", *map(str, paths), "--novels", *map(str, NOVELS)])
    caveats.main()
    assert "| theirs | 1.000 (1.000 to 1.000) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("made", "novels", "message"),
    [
        (record(), [3, 4], r"--novels: 3 \+ 4 is not 8, the number of documents"),
        (record(), [8, 0], "one or more each"),
        (
            record("broken", status="failed", reason="the process was killed"),
            NOVELS,
            "broken: is failed",
        ),
    ],
)
def test_what_has_no_novels_is_one_line(made: Record, novels: list[int], message: str) -> None:
    with pytest.raises(AUNetError, match=message):
        caveats.table([made], novels)
