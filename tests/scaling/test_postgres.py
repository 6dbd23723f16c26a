"""A sweep whose workers share a study in a real PostgreSQL server."""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aunet.errors import ConfigError
from aunet.scaling.study import open_study
from tests.runs import aunet, start, write_config

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(shutil.which("initdb") or "absent").parent]
USER = "postgres" if os.geteuid() == 0 else None
"""The server refuses to be run by root."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The URL of an empty database of a server that runs as long as the tests."""
    if not (PROGRAMS[-1] / "initdb").exists():
        pytest.skip("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="aunet-postgres-") as place, socket.socket() as free:
        if USER:
            shutil.chown(place, USER)
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()

        def call(program: str, *arguments: str) -> None:
            subprocess.run([PROGRAMS[-1] / program, *arguments], check=True, user=USER, cwd=place, stdout=sys.stderr)

        call("initdb", "--pgdata", f"{place}/data", "--auth", "trust", "--username", "aunet")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -k {place}"
        call("pg_ctl", "--pgdata", f"{place}/data", "--log", f"{place}/log", "--wait", "-o", options, "start")
        try:
            call("createdb", "--host", "127.0.0.1", "--port", str(port), "--username", "aunet", "study")
            yield f"postgresql://aunet:secret@127.0.0.1:{port}/study"
        finally:
            call("pg_ctl", "--pgdata", f"{place}/data", "--mode", "immediate", "stop")


def test_two_workers_share_a_study(server: str, tmp_path: Path) -> None:
    write_config(tmp_path)
    command = [
        *("scale", "sweep", str(tmp_path / "config.yaml"), "train.bytes=16000", "--family", "tiny", "--points", "3"),
        *("--lr", "1e-3", "3e-2", "--batch", "512", "2048", "--valid", f"held-out={tmp_path / 'valid.jsonl'}"),
        *("--records", str(tmp_path / "records"), "--storage", server),
    ]
    workers = [start(*command) for _ in range(2)]
    outputs = [worker.communicate() for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    begun = re.findall(r"^point (\d+): lr", "".join(out for out, _ in outputs), re.MULTILINE)
    assert len(begun) == len(set(begun))
    assert {"0", "1", "2"} <= set(begun)
    again = aunet(*command)
    assert again.returncode == 0, again.stderr
    assert "best: " in again.stdout
    assert not re.search(r"point \d+: lr", again.stdout)
    other = aunet(*command, "--seed", "1")
    assert other.returncode == 2
    assert "is another search: --seed is 1, there it is 0" in other.stderr


def test_a_server_that_is_not_there_is_one_line_without_the_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(
        ConfigError, match=r"^--storage: postgresql://aunet:\*\*\*@127\.0\.0\.1:1/x cannot be used: "
    ) as found:
        open_study("postgresql://aunet:secret@127.0.0.1:1/x", "made", {}, 60, None)
    assert "\n" not in str(found.value)
    assert "secret" not in str(found.value)


def test_a_driver_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ConfigError, match=r"pip install 'aunet\[postgres\]'"):
        open_study("postgresql://aunet@127.0.0.1:1/x", "made", {}, 60, None)
