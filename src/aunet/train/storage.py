"""Where checkpoints lie: `step-N/FILE` below a directory, or below a URL that fsspec knows, such as `s3://bucket/run`.

    Directory   the ranks write at once to where the files stay
    Remote      they write to a directory of their machine, then each uploads what it wrote

Neither renames a directory, which an object store cannot do: which checkpoints are complete, a manifest says that is
written last (see aunet.train.checkpoint).
"""

import shutil
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from aunet.config import TrainConfig
from aunet.errors import AUNetError, ConfigError, MissingExtra
from aunet.files import flush, make_directory, replacing

PAUSES = (1.0, 4.0, 16.0)
"""Seconds between the tries of what fails at a server."""
LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, NotImplementedError, TypeError)
"""What another try does not mend."""

T = TypeVar("T")


class Storage(ABC):
    """Files of checkpoints by step and name. Errors are an OSError, or an AUNetError once another try is useless."""

    shared: bool
    """Whether all ranks work on the same files; otherwise each machine has its own copy of what is read."""

    def __init__(self, root: str) -> None:
        self.root = root

    def __str__(self) -> str:
        return self.root

    def name(self, step: int) -> str:
        """The checkpoint of a step, as users see it."""
        return f"{self.root}/step-{step}"

    @abstractmethod
    def try_out(self) -> None:
        """Write a small file and delete it; AUNetError that names `train.checkpoints` where that cannot be done."""

    @abstractmethod
    def steps(self) -> dict[int, set[str]]:
        """The names of the files of every step that has any."""

    @abstractmethod
    def read(self, step: int, name: str) -> bytes:
        """A small file; FileNotFoundError where there is none."""

    @abstractmethod
    def write(self, step: int, name: str, content: bytes) -> None:
        """A small file, at once or not at all."""

    @abstractmethod
    def workspace(self, step: int, rank: int) -> Path:
        """A directory for a rank to write its files to."""

    @abstractmethod
    def publish(self, step: int, files: Iterable[Path]) -> None:
        """Put files from the workspace where they stay; they survive a crash after that."""

    @abstractmethod
    def clear(self, rank: int) -> None:
        """Forget the workspace of a rank."""

    @abstractmethod
    def fetch(self, step: int, names: Iterable[str]) -> None:
        """Bring files to `fetched`; one that is missing stays so."""

    @abstractmethod
    def fetched(self, step: int) -> Path:
        """The local directory from which a checkpoint is read."""

    @abstractmethod
    def release(self) -> None:
        """Forget what was fetched."""

    @abstractmethod
    def remove(self, step: int, names: Iterable[str]) -> None:
        """Delete the files of a step in this order."""


class Directory(Storage):
    """A directory that all ranks see."""

    shared = True

    def try_out(self) -> None:
        """Create the directory, write a small file and delete it."""
        make_directory(Path(self.root), "train.checkpoints")

    def steps(self) -> dict[int, set[str]]:
        """The names of the files of every step that has any."""
        numbers = {path: _number(path.name) for path in _entries(Path(self.root)) or []}
        listed = {n: _entries(path) for path, n in numbers.items() if n is not None}
        return {n: {file.name for file in files} for n, files in listed.items() if files is not None}

    def read(self, step: int, name: str) -> bytes:
        """A small file; FileNotFoundError where there is none."""
        return (self.fetched(step) / name).read_bytes()

    def write(self, step: int, name: str, content: bytes) -> None:
        """A small file, at once or not at all."""
        with replacing(self.workspace(step, 0) / name) as partial:
            partial.write_bytes(content)
        flush(Path(self.root))

    def workspace(self, step: int, rank: int) -> Path:
        """The directory of the step itself."""
        directory = self.fetched(step)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def publish(self, step: int, files: Iterable[Path]) -> None:
        """Wait until they are on disk."""
        for file in files:
            flush(file)

    def clear(self, rank: int) -> None:
        """Nothing: what was written stays."""

    def fetch(self, step: int, names: Iterable[str]) -> None:
        """Nothing: they are there."""

    def fetched(self, step: int) -> Path:
        """The directory of the step itself."""
        return Path(self.name(step))

    def release(self) -> None:
        """Nothing: what was read stays."""

    def remove(self, step: int, names: Iterable[str]) -> None:
        """Delete the files of a step in this order, then all that is left."""
        for name in names:
            (self.fetched(step) / name).unlink(missing_ok=True)
        shutil.rmtree(self.fetched(step), ignore_errors=True)


class Remote(Storage):
    """Below a URL; what fails there is tried again, with pauses. `scratch`: a directory of this machine."""

    shared = False

    def __init__(self, url: str, scratch: Path) -> None:
        super().__init__(url.rstrip("/"))
        try:
            import fsspec

            # Listings of another process's files must not be remembered.
            self._files, self._path = fsspec.url_to_fs(self.root, use_listings_cache=False, skip_instance_cache=True)
        except ImportError as error:
            if url.startswith(("s3:", "s3a:")):
                raise MissingExtra("s3fs", "remote", f"train.checkpoints on {url}") from None
            raise ConfigError(f"train.checkpoints: {url}: {error}") from None
        except ValueError as error:
            raise ConfigError(f"train.checkpoints: {url}: {error}") from None
        self._scratch = scratch

    def try_out(self) -> None:
        """Upload a small file and delete it, where that is allowed: without, checkpoints stay."""
        place = f"{self._path}/.writable"
        try:
            self._patiently(self.root, lambda: self._files.pipe_file(place, b"\n"))
        except (AUNetError, FileNotFoundError) as error:
            reason = _line(error).removeprefix(f"{self.root}: ")
            raise AUNetError(
                f"train.checkpoints: {self.root} cannot be written to ({reason}); name another place"
            ) from None
        with suppress(Exception):  # what client libraries raise has no common name; another rank may have deleted it
            self._files.rm_file(place)

    def steps(self) -> dict[int, set[str]]:
        """The names of the files of every step that has any."""
        found: dict[int, set[str]] = {}
        for path in self._patiently(self.root, lambda: self._listed()):
            directory, _, name = path.removeprefix(self._path).strip("/").rpartition("/")
            number = _number(directory)
            if number is not None:
                found.setdefault(number, set()).add(name)
        return found

    def read(self, step: int, name: str) -> bytes:
        """A small file; FileNotFoundError where there is none."""
        return self._patiently(f"{self.name(step)}/{name}", lambda: self._files.cat_file(self._at(step, name)))

    def write(self, step: int, name: str, content: bytes) -> None:
        """A small file, at once or not at all."""
        self._sent(step, name, lambda: self._files.pipe_file(self._at(step, name), content))

    def workspace(self, step: int, rank: int) -> Path:
        """A directory of this machine for a rank alone."""
        self.clear(rank)
        directory = self._written(rank) / f"step-{step}"
        directory.mkdir(parents=True)
        return directory

    def publish(self, step: int, files: Iterable[Path]) -> None:
        """Upload them."""
        for file in files:
            place = self._at(step, file.name)
            self._sent(step, file.name, lambda file=file, place=place: self._files.put_file(str(file), place))  # type: ignore[misc]

    def clear(self, rank: int) -> None:
        """Forget the workspace of a rank."""
        shutil.rmtree(self._written(rank), ignore_errors=True)

    def fetch(self, step: int, names: Iterable[str]) -> None:
        """Download files to the directory of this machine; one that is missing stays so."""
        self.release()
        directory = self.fetched(step)
        directory.mkdir(parents=True)
        for name in names:
            place, target = self._at(step, name), str(directory / name)
            try:
                self._patiently(f"{self.name(step)}/{name}", lambda a=place, b=target: self._files.get_file(a, b))  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def fetched(self, step: int) -> Path:
        """The directory of this machine from which a checkpoint is read."""
        return self._read() / f"step-{step}"

    def release(self) -> None:
        """Forget what was fetched."""
        shutil.rmtree(self._read(), ignore_errors=True)

    def remove(self, step: int, names: Iterable[str]) -> None:
        """Delete the files of a step in this order."""
        for name in names:
            try:
                self._patiently(f"{self.name(step)}/{name}", lambda n=name: self._files.rm_file(self._at(step, n)))  # type: ignore[misc]
            except FileNotFoundError:
                continue

    def _at(self, step: int, name: str) -> str:
        return f"{self._path}/step-{step}/{name}"

    # Machines that share the directory have one copy each.
    def _read(self) -> Path:
        return self._scratch / f"read-{socket.gethostname()}"

    def _written(self, rank: int) -> Path:
        return self._scratch / f"rank-{rank}"

    def _listed(self) -> list[str]:
        try:
            return list(self._files.find(self._path))
        except FileNotFoundError:
            return []

    def _sent(self, step: int, name: str, send: Callable[[], Any]) -> None:
        try:
            self._patiently(f"{self.name(step)}/{name}", send)
        except FileNotFoundError as error:
            raise AUNetError(f"{self.name(step)}/{name}: there is no such place ({_line(error)})") from None

    def _patiently(self, name: str, action: Callable[[], T]) -> T:
        """What the action gives, if need be after some tries; FileNotFoundError, or AUNetError that names the file."""
        for pause in PAUSES:
            try:
                return action()
            except LASTING:
                break
            except Exception:  # what a client library raises for its network is not an OSError everywhere
                time.sleep(pause)
        try:
            return action()
        except FileNotFoundError:
            raise
        except Exception as error:
            raise AUNetError(f"{name}: {_line(error)}") from None


def open_storage(config: TrainConfig) -> Storage:
    """Where the checkpoints of a run are, by `train.checkpoints`; ConfigError or MissingExtra if it cannot be used."""
    return storage_at(config.checkpoints_at, Path(config.out) / "staging")


def storage_at(place: str, scratch: Path) -> Storage:
    """A directory, or a URL of fsspec; `scratch` is for what passes through this machine."""
    protocol, separator, path = place.partition("://")
    if not separator:
        return Directory(place.rstrip("/"))
    if protocol in ("file", "local"):
        return Directory(path.rstrip("/"))
    if protocol == "memory":
        raise ConfigError("train.checkpoints: memory:// ends with the process; name a directory or an object store")
    return Remote(place, scratch)


def _entries(directory: Path) -> list[Path] | None:
    """What a directory holds; None where there is no directory, for which an error of the disk is not taken."""
    try:
        return list(directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return None


def _number(name: str) -> int | None:
    number = name.removeprefix("step-")
    return int(number) if name != number and number.isdecimal() else None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
