"""Real input: an AU-Net 2 and an AU-Net 3 of about 2M parameters on English novels, 3e13 paper FLOPs each.

    python experiments/novels.py 'novels/train-*.jsonl.zst' novels/valid.jsonl.zst [--presets ...] [--threads 2]

Each run leaves `runs/novels-PRESET` and, when it ends, one JSON record in `experiments/records/`. A run that was
interrupted goes on where it was; one whose record is there is not repeated.
"""

import argparse
import hashlib
import json
import platform
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

import aunet
from aunet.evals.bpb import make_validate
from aunet.evals.files import score_files
from aunet.presets import load_run
from aunet.train import metrics
from aunet.train.run import run_training

RECORDS = Path(__file__).parent / "records"
PROMPT = "It was a dark and stormy night, and "


def main() -> None:
    """Train, measure and record each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("valid")
    parser.add_argument("--presets", nargs="+", default=["aunet2-2m", "aunet3-2m"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    for preset in arguments.presets:
        path = RECORDS / f"novels-{preset}.json"
        if path.exists():
            print(f"{path} is there")
            continue
        record = run(preset, arguments.train, arguments.valid, arguments.threads)
        RECORDS.mkdir(exist_ok=True)
        path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def run(preset: str, train: str, valid: str, threads: int) -> dict[str, object]:
    """One model from its first step to its record."""
    out = Path("runs") / f"novels-{preset}"
    config = load_run(
        preset,
        [
            f"data.sources=[{{path: '{train}'}}]",
            f"data.valid=[{{path: '{valid}'}}]",
            "data.valid_bytes=200000",
            f"train.out={out}",
            f"train.threads={threads}",
            "train.valid_every=400",
            "train.checkpoint_every=200",
        ],
    )
    console = Console()
    finished = run_training(config, make_validate, console)
    if finished.exit_code:
        raise SystemExit(finished.exit_code)
    model = aunet.load(out)
    scores = score_files(model.session(), [valid], "text", console)
    lines = metrics.read(out / metrics.FILE)
    steps = [line for line in lines if "loss" in line]
    last = steps[-1]
    return {
        "family": preset,
        "date": date.today().isoformat(),
        "compute_flops": last["paper_flops"],
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "bits_per_byte": {Path(valid).name: scores.total.bits_per_byte},
        "bits_per_character": {Path(valid).name: scores.total.bits_per_character},
        "valid_bytes": scores.total.bytes,
        "bytes_read": last["bytes"],
        "bytes_per_second": last["bytes_per_second"],
        "seconds": last["seconds"],
        "contraction": last["contraction"],
        "seed": config.train.seed,
        "hardware": f"{platform.processor() or platform.machine()}, {threads} threads, torch {torch.__version__}",
        "code": aunet.__version__,
        "valid_sha256": hashlib.sha256(Path(valid).read_bytes()).hexdigest(),
        "curve_valid": [
            [line["step"], round(line["valid_bits_per_byte"], 4)] for line in lines if "valid_bits_per_byte" in line
        ],
        "curve_loss": [[line["step"], round(line["loss"], 4)] for line in steps[:: max(1, len(steps) // 60)]],
        "sample": {"prompt": PROMPT, "text": model.generate(PROMPT, max_bytes=400, temperature=0.7, seed=1)},
        "data": [Path(train).name, Path(valid).name],
        "model": config.model.model_dump(mode="json"),
        "train": config.train.model_dump(mode="json", exclude={"out"}),
        "seq_len": config.data.seq_len,
    }


if __name__ == "__main__":
    main()
