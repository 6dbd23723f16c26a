"""Speed of the splitters, on one core.

    python benchmarks/splitting.py [--rule RULE ...] [FILE ...]

FILES are text, or `.jsonl` / `.jsonl.zst` with a field `text` per line (the latter needs the package zstandard).
Without any, the standard library's own sources are read. Prints Markdown tables and a JSON line per rule and text; MB/s
are millions of bytes per second, the best of several passes.
"""

import argparse
import io
import json
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from aunet.splitting import splitter

RULES = ("word1", "word1+word2", "word1+word2+word4", "pretok", "fixed-4")
BUFFER = 10_000_000
DOCUMENT = 10_000
WORST = {
    "1 MB of a": b"a",
    "1 MB of spaces": b" ",
    "1 MB of digits": b"7",
    "1 MB of marks": b".",
    "1 MB of 'a b '": b"a b ",
    "1 MB of line ends": b"\n",
    "1 MB of 0xFF": b"\xff",
}


def read(paths: Iterable[Path]) -> dict[str, bytes]:
    """Text by name; repeated to the size of the buffer."""
    texts = {}
    for path in paths:
        if path.name.endswith((".jsonl", ".jsonl.zst")):
            data = "\n\n".join(json.loads(line)["text"] for line in lines(path)).encode()
        else:
            data = path.read_bytes()
        if data:
            texts["/".join(path.parts[-2:])] = data
    return texts


def lines(path: Path) -> Iterable[str]:
    """Lines of a file, compressed or not."""
    if path.suffix == ".zst":
        import zstandard

        with path.open("rb") as file:
            yield from io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
    else:
        with path.open(encoding="utf-8") as file:
            yield from file


def library_sources() -> dict[str, bytes]:
    """The modules of the standard library, which every Python carries."""
    files = sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))
    return {"standard library": b"\n".join(file.read_bytes() for file in files)}


def rate(call: Callable[[], object], size: int, passes: int = 5) -> float:
    """Millions per second, the best of `passes`."""
    best = float("inf")
    for _ in range(passes):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return size / best / 1e6


def measure(rule: str, data: bytes) -> dict[str, float]:
    """Offline on one buffer and on short documents, and streaming."""
    made = splitter(rule)
    buffer = (data * (BUFFER // len(data) + 1))[:BUFFER]
    documents = [buffer[i : i + DOCUMENT] for i in range(0, BUFFER // 4, DOCUMENT)]
    push = made.stream().push
    levels = made.levels(data)
    result = {
        "buffer_mb_s": rate(lambda: made.levels(buffer), len(buffer)),
        "documents_mb_s": rate(lambda: [made.levels(document) for document in documents], len(documents) * DOCUMENT),
        "stream_m_pushes_s": rate(lambda: [push(byte) for byte in buffer[:200_000]], 200_000),
    }
    for level in range(1, made.depth + 1):
        result[f"bytes_per_unit_{level + 1}"] = len(data) / max(1, int((levels >= level).sum()))
    return result


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rule", action="append", help=f"default: {', '.join(RULES)}")
    arguments = parser.parse_args()
    rules = arguments.rule or RULES
    texts = read(arguments.files) if arguments.files else library_sources()
    records = []

    print("| rule | text | 10 MB buffer, MB/s | 10 KB documents, MB/s | streaming, M bytes/s | bytes per unit |")
    print("|---|---|---|---|---|---|")
    for rule in rules:
        for name, data in texts.items():
            found = measure(rule, data)
            records.append({"rule": rule, "text": name, **found})
            units = " / ".join(f"{value:.2f}" for key, value in found.items() if key.startswith("bytes_per"))
            print(
                f"| `{rule}` | {name} | {found['buffer_mb_s']:.0f} | {found['documents_mb_s']:.0f} "
                f"| {found['stream_m_pushes_s']:.1f} | {units} |"
            )

    print(f"\n| worst cases, MB/s | {' | '.join(f'`{rule}`' for rule in rules)} |")
    print("|---" * (len(rules) + 1) + "|")
    for name, unit in WORST.items():
        data = unit * (1_000_000 // len(unit))
        rates = [rate(lambda data=data, rule=rule: splitter(rule).levels(data), len(data)) for rule in rules]
        records += [
            {"rule": rule, "text": name, "buffer_mb_s": value} for rule, value in zip(rules, rates, strict=True)
        ]
        print(f"| {name} | {' | '.join(f'{value:.0f}' for value in rates)} |")

    print()
    for record in records:
        print(
            json.dumps({key: round(value, 3) if isinstance(value, float) else value for key, value in record.items()})
        )


if __name__ == "__main__":
    main()
