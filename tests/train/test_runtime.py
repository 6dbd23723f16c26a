"""The machine of a run."""

import pytest

from aunet.config import TrainConfig
from aunet.errors import ConfigError
from aunet.train.runtime import prepare_device


@pytest.mark.parametrize("name", ["nonsense", "meta", "cuda:99"])
def test_a_device_that_cannot_train_is_one_line(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        prepare_device(TrainConfig(device=name))
    assert str(caught.value) == f"train.device: {name!r} is not available here; use cpu or auto"
