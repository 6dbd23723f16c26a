"""Writing files so that an interruption or a full disk leaves the old one whole."""

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aunet.errors import AUNetError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it takes the place of `path`, on disk, when the block ends without an error."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        flush(partial)
        partial.replace(path)
        flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a directory, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def make_directory(path: Path, key: str) -> None:
    """Create a directory that `key` names, or say in one line why it cannot be written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        # Ranks in containers may share a number of process.
        probe = path / f".writable-{secrets.token_hex(8)}"
        probe.write_bytes(b"\n")
        probe.unlink()
    except OSError as error:
        raise AUNetError(f"{key}: {path} cannot be written to ({error.strerror}); name another directory") from None
