"""The benchmarks whose numbers stand in the documentation run, at a tiny size."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from aunet.model.flops import flops_per_byte
from aunet.presets import load_run
from tests.runs import environment

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
TINY = ["--preset", "aunet2-2m", "--vocab", "1000", "--prompt-bytes", "40", "--new", "24", "--threads", "1"]
TINY += ["--patience", "0"]


def test_the_comparison_with_bpe_is_consistent(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "bpe.json"
    command = [sys.executable, str(BENCHMARKS / "bpe.py"), *TINY, "--batches", "1", "3", "--repeats", "2"]
    done = subprocess.run([*command, "--json", str(path)], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    report = json.loads(path.read_text())
    assert set(report) == {"machine", "text", "aunet", "bpe", "prompt_bytes", "new_bytes", "repeats", "results"}

    ours, theirs = report["aunet"], report["bpe"]
    run = load_run("aunet2-2m", [])
    assert ours["flops_per_byte"] == flops_per_byte(run.model, run.data.seq_len)
    assert theirs["flops_per_byte"] == pytest.approx(ours["flops_per_byte"], rel=0.05)
    assert theirs["vocab_size"] == 1000
    assert 1 < theirs["bytes_per_token"] < ours["bytes_per_deepest_unit"] < 7
    width, ffn, layers = theirs["hidden_size"], theirs["ffn_dim"], theirs["layers"]
    matrices = theirs["vocab_size"] * width + layers * (4 * width**2 + 3 * width * ffn)
    attention = layers * width * run.data.seq_len / theirs["bytes_per_token"]
    assert theirs["flops_per_byte"] == pytest.approx(6 * (matrices + attention) / theirs["bytes_per_token"])
    assert theirs["parameters"] == matrices + (2 * layers + 1) * width
    assert all(system["weights_bytes"] == 4 * system["parameters"] for system in (ours, theirs))

    assert [result["batch"] for result in report["results"]] == [1, 3]
    per_character = report["text"]["bytes_per_character"]
    for result in report["results"]:
        assert result["cores_of_others"] is None or result["cores_of_others"] >= 0
        assert result["tokens"] == round(24 / theirs["bytes_per_token"])
        tokens = (result["tokens"], theirs["bytes_per_token"])
        steps = {"aunet": (24, 1.0), "bpe": tokens, "bpe_kernels": tokens}
        for system, (ids, size) in steps.items():
            found = result[system]
            assert all(0 < one["min"] <= one["median"] <= one["max"] for one in found.values())
            assert found["all_text_s"]["min"] > found["first_text_s"]["min"]
            for end in ("min", "max"):
                rate = found["bytes_per_s"][end]
                assert found["characters_per_s"][end] == pytest.approx(rate / per_character)
                # Between the first id and the last, of two turns: no faster than all the rest in the shortest time.
                assert rate * found["all_text_s"]["max"] > result["batch"] * size * (ids - 1)
        for key, measure in product(("ratio", "ratio_kernels"), result["ratio"]):
            ratio, other = result[key][measure], {"ratio": "bpe", "ratio_kernels": "bpe_kernels"}[key]
            a, b = result["aunet"][measure], result[other][measure]
            assert a["min"] / b["max"] <= ratio["min"] <= ratio["max"] <= a["max"] / b["min"]

    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 2 * 5
    assert len({row.count("|") for row in rows}) == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--vocab", "10"], "--vocab: 10"),
        (["--batches", "0"], "--batches: 0"),
        (["--batches", "5000"], "--batches: the held-out text has no 5000 pieces"),
        (["--json", "nowhere/bpe.json"], "--json: there is no directory nowhere"),
        (["--preset", "aunet9"], "aunet9"),
    ],
)
def test_bad_flags_get_one_line(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    from benchmarks import bpe

    with pytest.raises(SystemExit) as caught:
        bpe.main([*TINY, *arguments])
    # argparse writes its line itself and exits with 2; other errors are the line.
    line = capsys.readouterr().err.splitlines()[-1] if caught.value.code == 2 else str(caught.value.code)
    assert named in line
    assert "\n" not in line


def test_what_deaths_have_changed_is_found(tmp_path: Path) -> None:
    from benchmarks import faults

    for name, losses in (("a", [3.0, 2.0]), ("b", [3.0, 2.0]), ("c", [3.0, 2.5]), ("d", [3.0])):
        (tmp_path / name).mkdir()
        lines = [json.dumps({"step": i + 1, "loss": loss, "lr": 0.1}) for i, loss in enumerate(losses)]
        (tmp_path / name / "metrics.jsonl").write_text("\n".join(lines))
        (tmp_path / name / "model.safetensors").write_bytes(b"weights" if name != "d" else b"others")
    found = {name: faults.differences(tmp_path / "a", tmp_path / name) for name in "bcd"}
    assert found == {"b": [], "c": [2], "d": [2, -1]}


def test_scoring_with_shared_prefixes_is_measured_against_each_request_alone() -> None:
    command = [sys.executable, str(BENCHMARKS / "scoring.py"), "--requests", "24", "--rounds", "2", "--shots", "2"]
    done = subprocess.run([*command, "--threads", "1"], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert row[2] == "24"
    assert float(row[4]) > float(row[5]) > 0


def test_a_part_that_fails_on_a_gpu_does_not_end_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import gpu

    def broken() -> bool:
        raise RuntimeError("no such kernel")

    assert [gpu.attempt("first", broken), gpu.attempt("second", lambda: True)] == [False, True]
    assert "first: failed" in (told := capsys.readouterr().out)
    assert "no such kernel" in told


def test_both_ways_to_the_loss_are_timed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from benchmarks import loss

    monkeypatch.setattr(sys, "argv", ["loss.py", "--repetitions", "1"])
    monkeypatch.setattr(loss, "CASES", {"few": (60, 8, 50)})
    loss.main()
    name, slow, fast, ratio = (cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|"))
    assert name == "few"
    assert all(cell.endswith(" ms") for cell in (slow, fast))
    assert float(ratio) > 0
