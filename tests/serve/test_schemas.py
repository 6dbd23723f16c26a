"""The server against its own description: whatever fits it or does not, nothing breaks."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.serve.processes import Server, serving

OPERATIONS = [
    ("POST", "/v1/completions"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/inspect"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model_id}"),
    ("GET", "/health"),
    ("GET", "/metrics"),
]


@pytest.fixture(scope="module")
def fuzzed(directory: Path) -> Iterator[Server]:
    with serving(directory, "--max-new-bytes", "16") as running:
        yield running
        assert "Traceback" not in running.errors()


@pytest.fixture(scope="module")
def description(fuzzed: Server) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{fuzzed.url}/openapi.json")


def test_everything_is_described(description: schemathesis.BaseSchema) -> None:
    found = [operation.ok() for operation in description.get_all_operations()]
    assert sorted((one.method.upper(), one.path) for one in found) == sorted(OPERATIONS)


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    [
        (method, path, mode)
        for method, path in OPERATIONS
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or method == "POST" or "{" in path  # the others take nothing
    ],
)
def test_answers_are_as_described(
    description: schemathesis.BaseSchema, method: str, path: str, mode: GenerationMode
) -> None:
    """Statuses, types and bodies; never a 500. What is wrong by the schema is refused; what is right by it may still
    break a rule about two fields (`top_logprobs` without `logprobs`), of which OpenAPI knows nothing."""
    operation = description[path][method]

    @settings(max_examples=50, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(excluded_checks=[positive_data_acceptance], timeout=None)

    ask()
