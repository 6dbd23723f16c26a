"""What `aunet info` tells, as values."""

import json
import resource
import sys

import pytest

from aunet.config import AUNetConfig
from aunet.model.accounting import describe
from aunet.model.flops import flops_per_byte, useful_flops_per_byte
from aunet.presets import preset


def test_totals_are_the_sums_of_the_stages_and_their_parts() -> None:
    config = AUNetConfig.model_validate(preset("aunet4-1b")["model"])
    account = describe(config, 8192)
    assert account.parameters == sum(stage.parameters for stage in account.stages)
    assert account.flops_per_byte == pytest.approx(flops_per_byte(config, 8192))
    assert account.flops_per_byte == pytest.approx(sum(stage.flops_per_byte for stage in account.stages))
    assert account.useful_flops_per_byte == pytest.approx(useful_flops_per_byte(config, 8192))
    assert account.useful_flops_per_byte == pytest.approx(sum(s.useful_flops_per_byte for s in account.stages))
    for stage in account.stages:
        assert stage.parameters == sum(part.parameters for part in stage.parts)
        assert stage.flops_per_byte == pytest.approx(sum(part.flops_per_byte for part in stage.parts))
    assert account.memory.activations_per_million_bytes == sum(s.activations_per_million_bytes for s in account.stages)


def test_json_has_what_tools_read() -> None:
    values = json.loads(json.dumps(describe(AUNetConfig.model_validate(preset("aunet2-1b")["model"])).to_json()))
    assert values["parameters"] == 1_324_203_008
    assert values["unit"] == "byte"
    assert {"flops_per_byte", "useful_flops_per_byte", "seq_len"} <= set(values)
    assert set(values["memory"]) == {"weights", "gradients", "optimizer", "activations_per_million_bytes"}
    assert [stage["contraction"] for stage in values["stages"]] == [1.0, 4.9]
    assert {"stage", "dim", "layers", "window", "parameters", "flops_per_byte", "parts"} <= set(values["stages"][0])


def test_the_largest_model_is_counted_without_its_weights() -> None:
    config = AUNetConfig.model_validate(preset("aunet2-8b")["model"])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert describe(config).memory.weights > 30e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (peak - before) * (1 if sys.platform == "darwin" else 1024) < 1e9


def test_measured_contraction_stands_beside_the_expected() -> None:
    account = describe(AUNetConfig.model_validate(preset("aunet2-2m")["model"]))
    assert [stage.measured_contraction for stage in account.stages] == [None, None]
    measured = account.with_measured([1.0, 4.2])
    assert [stage.measured_contraction for stage in measured.stages] == [1.0, 4.2]
    assert measured.stages[1].contraction == 4.9
