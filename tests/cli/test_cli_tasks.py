"""`aunet eval --tasks` and `aunet compare` in real processes, on models that know nothing and small files."""

import json
import os
import signal
import sqlite3
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from aunet.language_model import LanguageModel
from tests.browser import BROWSER, needs_browser
from tests.evals.test_cute import write_benchmark
from tests.evals.test_flores import write_flores
from tests.model.packs import small_config, small_model
from tests.runs import aunet, done, here, start

pytest.importorskip("sacrebleu")
OPTIONS = ("flores.languages=one_Latn", "flores.max_bytes=40", "noise.kinds=swap,drop", "noise.rates=0.3")
TASKS = {
    "cute": {"cute", "cute_character", "cute_word", "cute_spell", "cute_swap_word"},
    "flores": {"flores_one_Latn-eng_Latn", "flores_eng_Latn-one_Latn"},
    "noise": {"noise_text", "noise_text_swap_0.3", "noise_text_drop_0.3", "noise_choice", "noise_choice_swap_0.3"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two of random weights."""
    directory = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("first", "second")):
        LanguageModel(small_model(small_config(2), seed)).save(directory / name)
    return [directory / "first", directory / "second"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("data")
    write_benchmark(directory / "cute", 12)
    write_flores(directory / "flores")
    (directory / "noise").mkdir()
    (directory / "noise" / "texts.txt").write_text("Nobody knows when the next train is going to leave.\n")
    (directory / "noise" / "more.jsonl").write_text(
        "".join(json.dumps({"text": "it rains " * i}) + "\n" for i in (3, 9))
    )
    return directory


def evaluation(model: Path, tasks: str, data: Path, *more: str | Path) -> list[str | Path]:
    """The command, with the options of these tasks."""
    given = [one for one in OPTIONS if one.split(".")[0] in tasks]
    options: list[str | Path] = [part for one in given for part in ("--task-option", one)]
    return ["eval", model, "--tasks", tasks, "--data-dir", data, "--seed", "3", "--json", *options, *more]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_prints_scores_with_what_was_run(task: str, models: list[Path], data: Path) -> None:
    values = json.loads(done(*evaluation(models[0], task, data, "--limit", "3"), run=aunet))
    results = values["results"]
    assert values["model"] == models[0].name
    assert TASKS[task] <= {one["task"] for one in results}
    for one in results:
        assert one["low"] <= one["value"] <= one["high"] or one["value"] == pytest.approx(one["low"])
        assert one["seed"] == 3
        assert one["settings"]["limit"] == 3
        assert one["settings"]["data"] == "local"
    last = results[-1]["settings"]
    said = {"flores": {"languages": ["one_Latn"], "max_bytes": 40}, "noise": {"kind": "drop", "rate": 0.3}, "cute": {}}
    assert said[task].items() <= last.items()


def test_lines_of_texts_that_are_skipped_are_told(models: list[Path], tmp_path: Path) -> None:
    (tmp_path / "noise").mkdir()
    path = tmp_path / "noise" / "a.jsonl"
    path.write_text('no JSON\n{"text": "it rains"}\n')
    result = here(*evaluation(models[0], "noise", tmp_path))
    assert json.loads(result.stdout)["results"]
    assert result.stderr.startswith(f"skipped 1 x malformed JSON, first {path}:1: ")


def answered(cache: Path) -> int:
    """Answers that a cache holds."""
    if not cache.exists():
        return 0
    file = sqlite3.connect(cache)
    try:
        return int(file.execute("SELECT count(*) FROM answers").fetchone()[0])
    except sqlite3.OperationalError:  # its table is not made yet, or it is being written
        return 0
    finally:
        file.close()


def test_a_run_that_is_killed_goes_on_to_the_same_scores(models: list[Path], data: Path, tmp_path: Path) -> None:
    tasks = ",".join(TASKS)
    whole = done(*evaluation(models[0], tasks, data, "--cache", tmp_path / "whole"), run=aunet)
    cache = tmp_path / "cache"
    command = evaluation(models[0], tasks, data, "--cache", cache)
    process = start(*command)
    while process.poll() is None and not answered(cache):
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    printed, _ = process.communicate()
    assert (process.returncode, printed) == (-signal.SIGKILL, "")
    before = answered(cache)
    assert 0 < before < answered(tmp_path / "whole")
    assert done(*command, run=aunet) == whole
    assert answered(cache) == answered(tmp_path / "whole")


@pytest.fixture(scope="module")
def comparison(models: list[Path], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `aunet compare` writes of the two models."""
    pytest.importorskip("matplotlib")
    directory = tmp_path_factory.mktemp("comparison")
    for model in models:
        printed = done(*evaluation(model, ",".join(TASKS), data), run=aunet)
        (directory / f"{model.name}.json").write_text(printed)
    out = directory / "out"
    printed = done("compare", *(directory / f"{model.name}.json" for model in models), "--out", out, run=aunet)
    assert "first less second" in printed
    assert printed.splitlines()[-4:] == [str(out / f"compare.{suffix}") for suffix in ("md", "html", "tex", "svg")]
    return out


def test_results_are_compared_in_four_forms(comparison: Path) -> None:
    pages = {path.suffix: path.read_text() for path in comparison.iterdir()}
    assert set(pages) == {".md", ".html", ".tex", ".svg"}
    for task in ("cute_spell", "flores_one_Latn-eng_Latn", "noise_text_swap_0.3"):
        assert f"| {task} |" in pages[".md"]
        assert task in pages[".html"]
        assert task.replace("_", r"\_") in pages[".tex"]
    assert ElementTree.fromstring(pages[".svg"]).tag.endswith("svg")


@needs_browser
def test_the_page_opens_in_a_browser_without_a_complaint(comparison: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        problems: list[Any] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        address = (comparison / "compare.html").as_uri()
        page.on("request", lambda request: request.url == address or problems.append(request.url))
        page.goto(address)
        assert page.locator("h1").text_content() == "Models on tasks"
        rows = page.locator("tbody tr").filter(has_text="cute_spell")
        assert "cute_spell" in rows.first.text_content()
        assert page.locator("figure svg").bounding_box()["width"] > 300
        browser.close()
    assert not problems
