"""What a server allows."""

from typing import Any

import pytest

from aunet.errors import ConfigError
from aunet.serve.settings import Settings


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("slots", 0),
        ("queue", -1),
        ("prompt_cache_mib", -1),
        ("max_prompt_bytes", 0),
        ("max_new_bytes", 0),
        ("max_scored_bytes", 0),
        ("max_seconds", 0.0),
        ("max_seconds", float("nan")),
        ("drain_seconds", float("inf")),
        ("api_key", " "),
        ("api_key", "secret "),
        ("api_key", " secret"),
        ("api_key", "é"),
        ("api_key", "a\nb"),
    ],
)
def test_bad_values_name_their_flag(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(**{field: value})
    assert str(caught.value).startswith("--" + field.replace("_", "-"))


def test_all_problems_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Settings(slots=0, queue=-1)
    assert len(str(caught.value).splitlines()) == 2


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Settings(api_key="secret"))
