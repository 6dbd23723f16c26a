"""Writing text by command."""

import json
import subprocess
from pathlib import Path

import pytest

import aunet as library
from tests.runs import command, done, environment, refused

PROMPT = "the old dog runs "


class TestGenerate:
    def test_prints_the_prompt_and_its_continuation(self, model: Path) -> None:
        options = ["--prompt", PROMPT, "--max-bytes", "30", "--seed", "3"]
        process = subprocess.run(command("generate", model, *options), capture_output=True, env=environment())
        values = json.loads(done("generate", model, *options, "--json"))
        assert process.stdout.decode() == PROMPT + values["text"] + "\n"
        assert values["prompt"] == PROMPT
        assert values["seed"] == 3
        assert values["finish"] in ("length", "eos")
        found = library.load(model).generate(PROMPT, max_bytes=30, seed=3, as_bytes=True)
        assert bytes.fromhex(values["bytes_hex"]) == found
        assert values["text"] == found.decode(errors="replace")

    def test_an_empty_prompt(self, model: Path) -> None:
        values = json.loads(done("generate", model, "--max-bytes", "10", "--json", "--temperature", "0"))
        assert values["prompt"] == ""
        assert bytes.fromhex(values["bytes_hex"]) == library.load(model).generate(
            max_bytes=10, temperature=0, as_bytes=True
        )

    def test_ends_before_a_stop_string(self, model: Path) -> None:
        options = ["--prompt", PROMPT, "--max-bytes", "40", "--temperature", "0", "--json"]
        whole = json.loads(done("generate", model, *options))["text"]
        stop = whole[5:7]
        values = json.loads(done("generate", model, *options, "--stop", "never\n", "--stop", stop))
        assert values["text"] == whole[: whole.index(stop)]
        assert values["finish"] == "stop"

    def test_a_prompt_that_is_not_utf8(self, model: Path) -> None:
        process = subprocess.run(
            [*command("generate", model, "--max-bytes", "2", "--prompt"), b"a\xffb"],
            capture_output=True,
            env=environment(),
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.decode().startswith("a\N{REPLACEMENT CHARACTER}b")

    def test_a_terminal_of_ascii(self, model: Path) -> None:
        process = subprocess.run(
            command("generate", model, "--max-bytes", "2", "--prompt", "né"),
            capture_output=True,
            env={**environment(), "PYTHONIOENCODING": "ascii"},
        )
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith(b"n?")

    @pytest.mark.parametrize(
        ("option", "value"),
        [
            ("--temperature", "-1"),
            ("--top-k", "0"),
            ("--top-p", "2"),
            ("--max-bytes", "-1"),
            ("--stop", ""),
            ("--seed", "123456789012345678901234567890"),
        ],
    )
    def test_bad_values(self, model: Path, option: str, value: str) -> None:
        assert option.removeprefix("--").replace("-", "_") in refused("generate", model, option, value)

    def test_a_reader_that_leaves_early_is_no_error(self, model: Path) -> None:
        process = subprocess.Popen(
            command("generate", model, "--max-bytes", "2000"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
        process.wait()
