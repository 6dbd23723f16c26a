"""The kernels as a library, built once for each machine by its C++ compiler."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

from aunet.compiler import CPP_COMPILERS
from aunet.errors import ConfigError

SOURCES = ("wide.h", "team.h", "model.h", "products.h", "attention.h", "kernels.cpp")
"""What is compiled, in the order in which it builds on itself; the last one is what the compiler is given."""
FLAGS = ["-O3", "-std=c++20", "-pthread", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC"]
MACHINE: tuple[list[str], ...] = (["-march=native"], ["-mcpu=native"], [])
"""Tried in order: compilers differ in how they are told to use all of the processor."""


@functools.cache
def library() -> ctypes.CDLL:
    """The library of this machine; ConfigError where there is no compiler, or where it fails."""
    path = place()
    try:
        if not path.is_file():
            _build(path)
    except OSError as error:
        raise ConfigError(
            f"{path.parent}: cannot be written to ({error}); name another directory in AUNET_CACHE"
        ) from None
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be loaded ({error}); remove it") from None


def place() -> Path:
    """Where the library of this machine is or will be."""
    key = hashlib.sha256("\n".join([*_sources().values(), *FLAGS, _machine()]).encode()).hexdigest()[:20]
    return _directory() / f"kernels-{key}.so"


@functools.cache
def available() -> bool:
    """Whether the library is built already or can be."""
    try:
        library()
    except ConfigError:
        return False
    return True


def _build(path: Path) -> None:
    compiler = next((found for name in CPP_COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise ConfigError("native: compiled kernels need a C++ compiler; install g++, or go without")
    if sys.stderr.isatty():
        print("aunet: building kernels for this machine, once", file=sys.stderr)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Built beside its place and then renamed: several processes may do so at once, and one may be killed.
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        for name, text in _sources().items():
            Path(scratch, name).write_text(text)
        written, built = Path(scratch, SOURCES[-1]), Path(scratch, "kernels.so")
        for choice in MACHINE:
            command = [compiler, *FLAGS, *choice, str(written), "-o", str(built)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
            if result.returncode == 0:
                built.replace(path)
                return
    reason = next(iter(result.stderr.strip().splitlines()), "no message")
    raise ConfigError(f"native: {compiler} could not build the kernels ({reason[:120]}); go without")


def _sources() -> dict[str, str]:
    return {name: resources.files("aunet.infer.native").joinpath(name).read_text() for name in SOURCES}


def _directory() -> Path:
    """AUNET_CACHE, or the user's cache directory; ConfigError where there is neither, as in some containers."""
    own = os.environ.get("AUNET_CACHE")
    if own:
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "aunet"
    except RuntimeError:
        raise ConfigError("native: no home directory; name one in AUNET_CACHE") from None


def _machine() -> str:
    """What the library was built for: a home directory may be shared by machines, or containers, that differ."""
    facts = [platform.machine(), platform.system(), platform.processor(), *platform.libc_ver()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        facts += [line for line in cpuinfo.read_text().splitlines() if line.startswith(("flags", "Features"))][:1]
    return " ".join(facts)
