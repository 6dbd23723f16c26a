"""What docs/server.md shows works."""

import re
from pathlib import Path

import pytest

from aunet.serve.settings import Settings
from tests.serve.processes import Server, serving

TEXT = (Path(__file__).parents[2] / "docs" / "server.md").read_text()


def test_the_python_runs(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(directory, "--name", "mine") as server:
        (program,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
        exec(program.replace("http://127.0.0.1:8000", server.url), {})
    assert capsys.readouterr().out


def test_the_limits_have_these_defaults() -> None:
    rows = re.findall(r"^\| `--([a-z-]+)` \| ([\d ]+)", TEXT, re.MULTILINE)
    assert rows
    for option, value in rows:
        assert getattr(Settings(), option.replace("-", "_")) == int(value.replace(" ", ""))


def test_every_metric_is_named(server: Server) -> None:
    server.client().completions.create(model="tiny", prompt="a", max_tokens=1)
    names = {re.split(r"[{]|_bucket|_sum|_count", name)[0] for name in server.metrics() if "_created" not in name}
    ours = {name for name in names if name.startswith("aunet_")}
    assert ours == set(re.findall(r"`(aunet_\w+)", TEXT))
