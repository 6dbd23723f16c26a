"""The table of formats, and which one a file has."""

from aunet.data.blocks import Format
from aunet.data.lines import CompressedLines, Lines, Text, gzip_chunks, zstd_chunks
from aunet.data.tables import HubShard, Parquet

FORMATS: dict[str, Format] = {
    "text": Text(),
    "lines": Lines(),
    "gzip": CompressedLines("gzip", gzip_chunks),
    "zstd": CompressedLines("zstd", zstd_chunks),
    "parquet": Parquet(),
    "hf": HubShard(),
}
SUFFIXES = {".txt": "text", ".jsonl": "lines", ".jsonl.gz": "gzip", ".jsonl.zst": "zstd", ".parquet": "parquet"}
"""The table of formats by file name."""


def format_of(path: str) -> str | None:
    """Name of the format of a file, from its suffix."""
    name = path.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), None)
