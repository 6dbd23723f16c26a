"""Processes of `python -m MODULE` that begin with the program imported, which is most of what short ones do.

They are forked from a server that has imported and done nothing else. Each is a process of its own, with its own
environment, streams, signals and end. What it lacks is the start of an interpreter, which launchers, sweeps and the
command itself have in other tests, and torch's look at the environment while it is imported.
"""

import atexit
import os
import runpy
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import forkserver, get_context
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

import pytest

IMPORTED = [
    "aunet.cli",
    "aunet.evals.bpb",
    "aunet.infer.engine",
    "aunet.train.run",
    "torch._dynamo",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
]
"""What most commands import, and nothing that starts a thread: a fork has but one."""

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(IMPORTED)


def begin(
    module: str,
    *arguments: str | Path,
    env: dict[str, str],
    stderr: IO[str] | None = None,
    start_new_session: bool = False,
) -> "Forked | subprocess.Popen[str]":
    """Start `python -m MODULE`; stderr is piped as stdout is where no file is given. Only Linux forks with safety."""
    line = list(map(str, arguments))
    if sys.platform == "linux":
        return Forked(module, line, env, stderr, start_new_session)
    return subprocess.Popen(
        [sys.executable, "-m", module, *line],
        stdout=subprocess.PIPE,
        stderr=stderr or subprocess.PIPE,
        text=True,
        env=env,
        start_new_session=start_new_session,
    )


class Forked:
    """As much of `subprocess.Popen` as the tests use."""

    def __init__(
        self, module: str, arguments: list[str], env: dict[str, str], stderr: IO[str] | None, start_new_session: bool
    ) -> None:
        self.stdout, out = _pipe()
        self.stderr, err = _pipe() if stderr is None else (None, os.dup(stderr.fileno()))
        told = (module, arguments, env, Path.cwd(), start_new_session)
        _ensure_server()
        self._process = _CONTEXT.Process(target=_run, args=(_Passed(out), _Passed(err), *told))
        self._process.start()
        os.close(out)
        os.close(err)
        atexit.register(self.kill)  # multiprocessing waits at the end for what a failed test has left behind
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self) -> int:
        self._process.join()
        assert self.returncode is not None
        return self.returncode

    def communicate(self) -> tuple[str, str]:
        """All that it still writes until it ends."""
        with ThreadPoolExecutor() as readers:
            out, err = readers.map(lambda stream: stream.read() if stream else "", (self.stdout, self.stderr))
        self.wait()
        for stream in (self.stdout, self.stderr):
            if stream:
                stream.close()
        return out, err

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _ensure_server() -> None:
    """One for each process of the tests, from its first fork to its end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # which torch reads while it is imported
        forkserver.ensure_running()


class _Passed:
    """A descriptor that arrives as the number of its copy in the new process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (DupFd(self._descriptor),)


def _arrived(copy: Any) -> int:
    return int(copy.detach())


def _pipe() -> tuple[IO[str], int]:
    read, write = os.pipe()
    return os.fdopen(read), write


def _run(
    out: int, err: int, module: str, arguments: list[str], env: dict[str, str], place: Path, session: bool
) -> None:
    """What `python -m MODULE ARGUMENTS` does, to the end of the process."""
    if session:
        os.setsid()
    for copy, stream in ((out, 1), (err, 2)):
        os.dup2(copy, stream)
        os.close(copy)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)  # noqa: SIM115
    os.chdir(place)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
