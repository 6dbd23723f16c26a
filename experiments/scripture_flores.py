"""Parallel scripture as a directory of the form of FLORES, for `aunet eval MODEL --tasks flores --data-dir OUT`.

    python experiments/scripture_flores.py OUT scripture --languages estonian gaelic swahili

A document is a chapter, whose `id` is the same in all languages, with a verse on each line. A chapter that all the
languages have with the same number of verses is parallel verse by verse; its verses that are no longer than
`--max-bytes` in any of the languages are the sentences, never cut. Held-out chapters (`LANGUAGE.valid.jsonl.zst`)
become devtest, training chapters dev.
"""

import argparse
import json
from pathlib import Path

import zstandard

from aunet.files import make_directory, replacing

PARTS = {"dev": "train", "devtest": "valid"}


def main() -> None:
    """Write both parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("scripture", type=Path, help="Of LANGUAGE.train.jsonl.zst and .valid.")
    parser.add_argument("--languages", nargs="+", required=True, help="Two or more; flores.pivot names the pivot.")
    parser.add_argument("--max-bytes", type=int, default=200)
    parser.add_argument("--limit", type=int, help="Sentences of a part at most.")
    arguments = parser.parse_args()
    languages = arguments.languages
    for split, part in PARTS.items():
        count = write(split, part, arguments.scripture, languages, arguments.max_bytes, arguments.limit, arguments.out)
        print(f"{split}: {count} sentences in each of {len(languages)} languages")


def write(split: str, part: str, scripture: Path, languages: list[str], most: int, limit: int | None, out: Path) -> int:
    """A file for each language; how many lines each has."""
    chapters = {name: read(scripture / f"{name}.{part}.jsonl.zst") for name in languages}
    shared = [key for key in chapters[languages[0]] if len({len(of.get(key, ())) for of in chapters.values()}) == 1]
    rows = [row for key in shared for row in zip(*(of[key] for of in chapters.values()), strict=True)]
    kept = [row for row in rows if all(row) and max(len(verse.encode()) for verse in row) <= most][:limit]
    if not kept:
        raise SystemExit(f"{split}: no chapter has the same number of verses in all these languages; name others")
    make_directory(out / split, "OUT")
    for name, verses in zip(languages, zip(*kept, strict=True), strict=True):
        with replacing(out / split / f"{name}.{split}") as partial:
            partial.write_text("".join(f"{verse}\n" for verse in verses), encoding="utf-8")
    return len(kept)


def read(path: Path) -> dict[str, list[str]]:
    """Verses of every chapter by its id."""
    try:
        with zstandard.open(path, "rt", encoding="utf-8") as lines:
            documents = [json.loads(line) for line in lines]
    except FileNotFoundError:
        raise SystemExit(f"{path} is missing; it holds the chapters of a language") from None
    return {one["id"]: [" ".join(verse.split()) for verse in one["text"].split("\n")] for one in documents}


if __name__ == "__main__":
    main()
