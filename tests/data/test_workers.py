import errno
import gc
import io
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from corpora import SUFFIXES, Residues, same, sentences, write

from aunet.config import DataConfig, SourceConfig
from aunet.data import Loader, Problems
from aunet.data.sources import plan_source
from aunet.errors import AUNetError, RunFailed
from aunet.splitting import splitter


@pytest.fixture
def config(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.jsonl", sentences(50, seed=i))
    return DataConfig(sources=(SourceConfig(path=str(tmp_path)),), seq_len=64, lanes=4, workers=2, prefetch=2)


def children():
    return [process for process in multiprocessing.active_children() if process.name.startswith("aunet-loader")]


def test_workers_start_with_the_first_row_and_end_with_the_loader(config):
    with Loader(config, Residues()) as loader:
        assert not children()
        loader.next_row()
        assert len(children()) == 2
    assert not children()


def test_a_forgotten_loader_takes_its_workers_along(config):
    loader = Loader(config, Residues())
    loader.next_row()
    del loader
    gc.collect()
    assert not children()


def test_spawned_workers_give_the_same_rows(config):
    rule = splitter("word1+word2")
    with Loader(config, rule) as forked, Loader(config, rule, start_method="spawn") as spawned:
        assert all(same(a, b) for a, b in zip(forked.next_rows(40), spawned.next_rows(40), strict=True))


def test_workers_leave_signals_to_the_training_process(config):
    with Loader(config, Residues()) as loader:
        loader.next_row()
        for process in children():
            os.kill(process.pid, signal.SIGINT)
            os.kill(process.pid, signal.SIGTERM)
        loader.next_rows(100)
        assert len(children()) == 2


def test_killed_workers_are_started_again_without_a_row_lost_or_repeated(config):
    with Loader(config, Residues()) as undisturbed:
        expected = undisturbed.next_rows(400)
        state = undisturbed.state_dict()
    with Loader(config, Residues()) as loader:
        rows = []
        for count in (7, 93, 300):
            for process in children()[: 1 + len(rows) % 2]:  # one of them, then both
                process.kill()
            rows += loader.next_rows(count)
        assert all(same(a, b) for a, b in zip(rows, expected, strict=True))
        assert loader.state_dict() == state
        lines = loader.take_restarts()
    assert len(lines) >= 2
    assert "was killed by signal 9" in lines[0]
    assert "started again after row" in lines[0]


def test_workers_that_cannot_be_started_are_one_line_and_leave_none(config, monkeypatch):
    fork = multiprocessing.get_context("fork").Process
    started = []

    def start(self, start=fork.start):
        if started:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        start(self)
        started.append(self.pid)

    monkeypatch.setattr(fork, "start", start)
    with Loader(config, Residues(), start_method="fork") as loader, pytest.raises(AUNetError) as error:
        loader.next_row()
    assert str(error.value) == f"data.workers: 1 of 2 could be started ({os.strerror(errno.EAGAIN)}); lower it"
    assert started
    assert not children()


class Killed(Residues):
    """A rule that its worker does not survive, as if the memory of the machine were too small for it."""

    def levels(self, data):
        os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_are_killed_again_and_again_are_one_line(config):
    with Loader(config, Killed()) as loader:
        with pytest.raises(AUNetError) as error:
            loader.next_row()
        assert str(error.value) in [
            f"loader worker {i} was killed by signal 9; if memory is short lower data.workers or data.shuffle_bytes"
            for i in range(2)
        ]
        assert len(loader.take_restarts()) == 3


class Refused(Residues):
    """A rule whose worker asks for memory that the system does not give, as under a limit of a cluster."""

    def levels(self, data):
        raise MemoryError


def test_a_worker_without_memory_is_one_line(config):
    with Loader(config, Refused()) as loader, pytest.raises(RunFailed) as error:
        loader.next_row()
    assert str(error.value) in [
        f"loader worker {i}: out of memory; lower data.workers or data.shuffle_bytes" for i in range(2)
    ]


class Failing(io.FileIO):
    """A file of a disk that no longer gives what it holds."""

    def readinto(self, buffer):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def readall(self):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_disk_that_fails_is_one_line_with_the_file(tmp_path, monkeypatch, suffix, workers):
    path = write(tmp_path / f"a{suffix}", sentences(50))
    config = DataConfig(sources=(SourceConfig(path=str(path)),), seq_len=64, workers=workers)

    def open_failing(file, mode, buffering):
        return io.BufferedReader(Failing(str(file)), buffering)

    with Loader(config, Residues(), start_method="fork") as loader:
        monkeypatch.setattr(Path, "open", open_failing)
        with pytest.raises(AUNetError) as error:
            loader.next_rows(10)
    assert str(error.value) == f"{path}: Input/output error"
    with pytest.raises(AUNetError) as error:
        plan_source(config.sources[0], 1, Problems())
    assert str(error.value) == f"{path}: Input/output error"


class Broken(Residues):
    def levels(self, data):
        raise ZeroDivisionError("a bug")


def test_a_bug_in_a_worker_keeps_its_traceback(config):
    with Loader(config, Broken()) as loader, pytest.raises(RuntimeError, match=r"(?s)loader worker .*levels.*a bug"):
        loader.next_row()


SCRIPT = """
    import multiprocessing, signal, sys, time
    from aunet.config import DataConfig, SourceConfig
    from aunet.data import Loader
    from aunet.splitting import splitter

    loader = Loader(DataConfig(sources=(SourceConfig(path=sys.argv[1]),), seq_len=64, workers=2), splitter("word1"))
    loader.next_row()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started the tests with it ignored
    try:
        print(*(process.pid for process in multiprocessing.active_children()), flush=True)
        {then}
    except KeyboardInterrupt:
        print("stopped", flush=True)
"""


def start(tmp_path, then):
    script = textwrap.dedent(SCRIPT).format(then=then)
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def gone(pids):
    """Wait until none of the processes runs; those of a killed parent have nobody who collects them (state Z)."""
    while any(_running(pid) for pid in pids):
        time.sleep(0.05)
    return True


def _running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_exit_without_close_does_not_hang(config, tmp_path):
    process, workers = start(tmp_path, "pass")
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "", "")
    assert len(workers) == 2
    assert gone(workers)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_in_the_terminal_is_silent_in_workers(config, tmp_path):
    process, workers = start(tmp_path, "time.sleep(60)")
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process
    out, err = process.communicate()
    assert (process.returncode, out, err) == (0, "stopped\n", "")
    assert gone(workers)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_with_a_killed_training_process(config, tmp_path):
    process, workers = start(tmp_path, "time.sleep(60)")
    process.kill()
    process.communicate()
    assert gone(workers)
