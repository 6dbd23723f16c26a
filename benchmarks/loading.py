"""How fast one process reads, splits and lays out rows, alone and as one of many ranks.

    python benchmarks/loading.py FILES... [--ranks 1 8 64] [--tokenizer tokenizer.json] [--rule word1] [--seq-len 8192]

Every rank reads and splits the text of all, and lays out its own rows alone (docs/distributed.md), so the rate with R
ranks bounds what all of them together train on, per loader process of a rank. MB/s are millions of bytes of text of all
ranks per second of this process's CPU time.
"""

import argparse
import time
from pathlib import Path

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader, Share
from aunet.splitting import splitter
from aunet.vocabulary import BYTES, Tokens, Vocabulary

WARM, MEASURED = 2_000_000, 20_000_000
"""Bytes of text, of all ranks."""


def main() -> None:
    """Print a row of a Markdown table per number of ranks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="files or globs of text")
    parser.add_argument("--ranks", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--tokenizer", type=Path, help="read its tokens, which are not split")
    parser.add_argument("--rule", default="word1")
    parser.add_argument("--seq-len", type=int, default=8192)
    arguments = parser.parse_args()
    sources = tuple(SourceConfig(path=path) for path in arguments.files)
    config = DataConfig(sources=sources, seq_len=arguments.seq_len, workers=0)
    vocabulary = Tokens.load(arguments.tokenizer) if arguments.tokenizer else BYTES
    rule = "" if arguments.tokenizer else arguments.rule
    print("| ranks | MB/s |\n|---|---|")
    for ranks in arguments.ranks:
        print(f"| {ranks} | {rate(config, rule, vocabulary, ranks):.0f} |", flush=True)


def rate(config: DataConfig, rule: str, vocabulary: Vocabulary, ranks: int) -> float:
    """Of the first of so many ranks."""
    with Loader(config, splitter(rule), vocabulary=vocabulary, share=Share(0, ranks)) as loader:
        read(loader, ranks, WARM)
        started = time.process_time()
        size = read(loader, ranks, MEASURED)
        return size / (time.process_time() - started) / 1e6


def read(loader: Loader, ranks: int, wanted: int) -> float:
    """Take rows until those of all ranks have so many bytes, going by one's own; how many they have."""
    size = 0
    while size * ranks < wanted:
        size += sum(row.bytes for row in loader.next_rows(ranks))
    return float(size * ranks)


if __name__ == "__main__":
    main()
