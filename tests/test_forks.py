"""What is forked behaves as what is started: its environment, place, streams, signals and end."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.forks import begin
from tests.runs import environment

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux forks with safety")
PROGRAM = """
import json, os, signal, sys
print(json.dumps([__name__, sys.argv[1:], os.getcwd(), os.environ["COLUMNS"], "HOME" in os.environ, os.getsid(0)]))
print("heard", file=sys.stderr)
if sys.argv[1:] == ["wait"]:
    sys.stdout.flush()
    signal.pause()
sys.exit(len(sys.argv) + 5)
"""


@pytest.fixture(autouse=True)
def _place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forked_program.py").write_text(PROGRAM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("HOME", raising=False)


def test_it_has_what_it_is_given(tmp_path: Path) -> None:
    process = begin("forked_program", "a", tmp_path, env={**environment(), "COLUMNS": "7"})
    out, err = process.communicate()
    assert json.loads(out) == ["__main__", ["a", str(tmp_path)], str(tmp_path), "7", False, os.getsid(0)]
    assert err == "heard\n"
    assert process.returncode == 8


@linux
def test_it_begins_with_the_program_and_one_thread(tmp_path: Path) -> None:
    look = "import os, sys; print('aunet.train.run' in sys.modules, len(os.listdir('/proc/self/task')))"
    (tmp_path / "forked_look.py").write_text(f"{look}; import torch; print(torch.get_num_threads())")
    assert begin("forked_look", env=environment()).communicate() == ("True 1\n1\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_it_and_its_session(number: int, tmp_path: Path) -> None:
    with (tmp_path / "log").open("w+") as log:
        process = begin("forked_program", "wait", env=environment(), stderr=log, start_new_session=True)
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())[-1] == process.pid
        assert process.poll() is None
        os.killpg(process.pid, number)
        assert process.wait() == -number
        assert process.poll() == process.returncode == -number
        process.send_signal(number)  # of which no other process hears
        process.stdout.close()
        assert (tmp_path / "log").read_text() == "heard\n"


@linux
def test_what_is_left_behind_ends_with_the_tests(tmp_path: Path) -> None:
    program = """
from tests import forks
forks._CONTEXT.set_forkserver_preload([])
process = forks.begin("forked_program", "wait", env={"COLUMNS": ""})
process.stdout.readline()
print(process.pid)
"""
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    line, env = [sys.executable, "-c", program], {**environment(), "PYTHONPATH": paths}
    pid = int(subprocess.run(line, env=env, capture_output=True, check=True).stdout)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
