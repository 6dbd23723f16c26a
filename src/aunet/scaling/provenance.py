"""Where a result comes from: the code, the texts, the machine."""

import hashlib
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch

import aunet
from aunet.config import SourceConfig
from aunet.data.problems import Problems
from aunet.data.sources import HUB, documents, find_files, plan_source
from aunet.scaling.records import Code

READ_WHOLE = 4 << 30
"""Bytes of files up to which a text is hashed and counted whole."""
END = 1 << 20
"""Bytes of the beginning and of the end of a file that are hashed where there is more."""
CODE = (".py", ".cpp", ".h")
"""Files of the package on which results depend."""


def size_of(sources: Sequence[SourceConfig]) -> float:
    """Bytes of text, each document once; estimated if the files are larger than READ_WHOLE, NaN if nobody knows."""
    size = 0.0
    for source in sources:
        whole = not source.path.startswith(HUB) and _is_read_whole(_files(source))
        size += sum(map(len, documents(source))) if whole else plan_source(source, 1, Problems()).size
    return size


def hash_of(sources: Sequence[SourceConfig]) -> str:
    """SHA-256 over the contents of the files in order.

    Over sizes, beginnings and ends if they are larger than READ_WHOLE; over the name of a dataset of the hub.
    """
    digest = hashlib.sha256()
    for source in sources:
        if source.path.startswith(HUB):
            digest.update(source.path.encode())
            continue
        files = _files(source)
        whole = _is_read_whole(files)
        for path in files:
            _hash_file(digest, path, whole)
    return digest.hexdigest()


def _files(source: SourceConfig) -> list[Path]:
    return [Path(name) for name in find_files(source.path, Problems())]


def _is_read_whole(files: Sequence[Path]) -> bool:
    return sum(path.stat().st_size for path in files) <= READ_WHOLE


def epochs(bytes_read: int, size: float) -> float | None:
    """How often a text of so many bytes was read; None if its size is not known."""
    return bytes_read / size if math.isfinite(size) and size else None


def _hash_file(digest: "hashlib._Hash", path: Path, whole: bool) -> None:
    with path.open("rb") as file:
        if whole:
            while part := file.read(END):
                digest.update(part)
            return
        size = path.stat().st_size
        digest.update(str(size).encode() + file.read(END))
        file.seek(max(size - END, 0))
        digest.update(file.read(END))


def code() -> Code:
    """The package that runs."""
    root = Path(str(resources.files("aunet")))
    return Code(version=aunet.__version__, commit=_commit(root), sources=_sources(root))


def _sources(root: Path) -> str:
    """SHA-256 over all code below a directory: by compiled kernels too models are scored."""
    digest = hashlib.sha256()
    for path in sorted(path for path in root.rglob("*") if path.suffix in CODE):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _commit(root: Path) -> str | None:
    """The commit of the repository that tracks the package; None where none does."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        return git("rev-parse", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return None


def hardware(device: torch.device) -> str:
    """What the run was trained on, in words."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        name = f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores"
    return f"{name}, torch {torch.__version__}"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
