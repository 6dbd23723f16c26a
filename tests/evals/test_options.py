"""Options of tasks that are their own."""

from pathlib import Path

import pytest

from aunet.errors import ConfigError
from aunet.evals.flores import FloresOptions
from aunet.evals.noise import NoiseOptions
from aunet.evals.options import TaskOptions, own_keys
from aunet.evals.tasks import OWN, options_of
from tests.runs import here

COMMON = TaskOptions(limit=3, seed=7)


def test_options_of_tasks_from_texts() -> None:
    given = ["flores.languages=fra_Latn, deu_Latn", "flores.pivot=fra_Latn", "noise.rates=0.05,1", "noise.max_bytes=9"]
    found = options_of(["noise", "flores", "cute", "arc_easy"], COMMON, given)
    assert found == {
        "flores": FloresOptions(limit=3, seed=7, languages=("fra_Latn", "deu_Latn"), pivot="fra_Latn"),
        "noise": NoiseOptions(limit=3, seed=7, rates=(0.05, 1.0), max_bytes=9),
        "cute": COMMON,
    }


@pytest.mark.parametrize("seed", [-1, 1 << 32])
def test_seeds_are_what_numpy_takes(seed: int) -> None:
    with pytest.raises(ConfigError, match=f"--seed: {seed} is not from 0 to 4294967295"):
        TaskOptions(seed=seed)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("rates=0.1", "--task-option: 'rates=0.1' is not TASK.KEY=VALUE; write for instance noise.rates=0.05,0.1"),
        ("noise.rates=", "--task-option: 'noise.rates=' is not TASK.KEY=VALUE"),
        ("flores.pivot=x", "--task-option: flores.pivot: flores is not among the --tasks that have options (noise)"),
        ("noise.rate=0.1", "--task-option: noise.rate is unknown; did you mean noise.rates?"),
        ("noise.seed=1", "--task-option: noise.seed is unknown; noise has rates, kinds, max_bytes, text_field"),
        ("cute.seed=1", "--task-option: cute.seed is unknown; cute has none"),
        ("noise.rates=0.1,much", "--task-option: noise.rates: 'much': input should be a valid number"),
        ("noise.rates=2", "noise.rates: a rate lies from 0 to 1, 2 does not"),
        ("noise.kinds=swap,wash", "noise.kinds: 'wash' is not a kind; known: swap, drop"),
        ("noise.max_bytes=0", "noise.max_bytes: 0 is not at least 1"),
    ],
)
def test_what_is_wrong_with_one_is_a_line(given: str, line: str) -> None:
    with pytest.raises(ConfigError) as error:
        options_of(["noise", "cute"], COMMON, [given])
    assert str(error.value).startswith(line)
    assert len(str(error.value).splitlines()) == 1


def test_the_help_and_the_documents_name_every_option() -> None:
    shown = " ".join(here("eval", "--help").stdout.split())
    documents = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    for name, task in OWN.items():
        if keys := own_keys(task.options):
            assert f"{name}: {', '.join(keys)}" in shown
            assert all(f"`{name}.{key}`" in documents for key in keys)
