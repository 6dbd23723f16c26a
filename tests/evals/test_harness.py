"""Models as models of lm-evaluation-harness: the same scores through both of its doors."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from aunet.errors import AUNetError, ConfigError
from aunet.evals.answers import Continuation, Writing
from aunet.evals.harness import AnswersLM, AUNetLM, moved
from aunet.language_model import LanguageModel
from tests.model.packs import small_config, small_model
from tests.runs import environment

TEXTS = ["One two, three. ", "Ünïcode 東京の朝", "x" * 300, "", " white space "]


@dataclass
class Asked:
    args: tuple[Any, ...]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    LanguageModel(small_model(small_config(2))).save(path)
    return path


def test_likelihoods_are_of_the_text_with_the_white_space_before_it(model: Path) -> None:
    lm = AUNetLM(pretrained=model, batch_size="auto")
    pairs = [("A: ", "yes"), ("A:", " yes"), ("", "yes"), (" \n", "yes"), ("A:", "")]
    found = lm.loglikelihood([Asked(pair) for pair in pairs])
    loaded = LanguageModel.load(model)
    scored = [("A:", " yes"), ("A:", " yes"), ("", "yes"), ("", " \nyes"), ("A:", "")]
    expected = [-loaded.continuation_bits(a, [b])[0].sum() * math.log(2) for a, b in scored]
    assert [log for log, _ in found] == pytest.approx(expected, abs=1e-4)
    assert moved("é ", "x").prompt == "é".encode()


def test_rolling_is_the_whole_text_without_its_end(model: Path) -> None:
    loaded = LanguageModel.load(model)
    found = AUNetLM(pretrained=model).loglikelihood_rolling([Asked((text,)) for text in TEXTS])
    assert [-log / math.log(2) for log in found] == pytest.approx(
        [loaded.bits(text)[:-1].sum() for text in TEXTS], abs=1e-3
    )


class Recorded:
    """Notes what it is asked to write."""

    def __init__(self) -> None:
        self.asked: list[Writing] = []

    def likelihoods(self, asked: Sequence[Continuation], progress: Any = None) -> Any:
        raise NotImplementedError

    def writings(self, asked: Sequence[Writing], progress: Any = None) -> list[bytes]:
        self.asked += asked
        return [b"caf\xc3" for _ in asked]


def test_limits_of_generation_are_bytes_and_stops_are_handed_on() -> None:
    recorded = Recorded()
    options = [{"until": "é", "max_gen_toks": 7, "do_sample": False, "temperature": 0.0}, {"until": ["\n", ""]}]
    found = AnswersLM(recorded).generate_until([Asked(("Q ", one)) for one in options])
    assert recorded.asked == [Writing(b"Q ", 28, ("é".encode(),)), Writing(b"Q ", 1024, (b"\n",))]
    assert found == ["caf\ufffd"] * 2


def test_samples_are_refused_in_one_line() -> None:
    with pytest.raises(AUNetError, match="asks for random samples") as error:
        AnswersLM(Recorded()).generate_until([Asked(("Q", {"until": ["\n"], "do_sample": True, "temperature": 0.8}))])
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"), [({}, "pretrained=DIR"), ({"pretrained": "x", "batch_size": "many"}, "--batch_size: many")]
)
def test_bad_model_arguments_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        AUNetLM(**options)


def test_a_directory_whose_name_is_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pretrained=2024` comes as an int from the harness."""
    LanguageModel(small_model(small_config(2)), native=False).save(tmp_path / "2024")
    monkeypatch.chdir(tmp_path)
    lm = AUNetLM(pretrained=2024, cache=7)  # type: ignore[arg-type]
    assert lm.loglikelihood_rolling([Asked(("text",))])
    assert (tmp_path / "7").is_file()


PROGRAM = """
import json, sys, logging
import aunet.evals.harness, aunet.hf
import lm_eval.models
from lm_eval import evaluator
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
model, tasks = sys.argv[1:]
found = {}
for name, options in [("aunet", {}), ("hf", {"device": "cpu", "max_length": 4096, "batch_size": 4})]:
    lm = get_model(name)(pretrained=model, **options)
    loaded = TaskManager(include_path=tasks, include_defaults=False).load(["choice", "context"])
    for task in loaded["tasks"].values():
        task.set_config(key="num_fewshot", value=2)
        task.set_fewshot_seed(seed=1)
    result = evaluator.evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0)
    found[name] = {task: [one["filtered_resps"] for one in ones] for task, ones in result["samples"].items()}
    found[name]["scores"] = result["results"]
print(json.dumps(found, default=float))
"""
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {file}}}}}
test_split: test
doc_to_text: "{text}"
"""
CHOICES = """
output_type: multiple_choice
doc_to_choice: "{{choices}}"
doc_to_target: label
metric_list: [{metric: acc}, {metric: acc_norm}]
"""


def test_the_same_scores_through_hf_and_aunet(model: Path, tmp_path: Path) -> None:
    """A real process for the harness, whose registries and logging are its own."""
    pytest.importorskip("transformers")
    data = tmp_path / "test.jsonl"
    records = [
        {"q": f"what is {i} é?", "choices": ["one", "zwei drei", f"it is {i}"], "label": i % 3} for i in range(6)
    ]
    data.write_text("\n".join(map(json.dumps, records)))
    for name, text in [("choice", "Q: {{q}}\\nA:"), ("context", "Q: {{q}}\\nA:  ")]:
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, file=data, text=text) + CHOICES)
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, model, tmp_path],
        capture_output=True,
        text=True,
        env={**environment(), "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")},
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    for name in ("choice", "context"):
        ours, theirs = ([log for one in found[by][name] for log, _ in one] for by in ("aunet", "hf"))
        assert ours == pytest.approx(theirs, abs=1e-3)
    assert len(found["aunet"]["choice"]) == 6
    assert found["aunet"]["scores"] == found["hf"]["scores"]
