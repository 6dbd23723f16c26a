"""Shapes of Mamba-2 for a budget."""

import pytest

from aunet.model.flops import useful_flops_per_byte
from aunet.scaling.families import FAMILIES, Text, build, shape


@pytest.mark.parametrize(("flops", "within"), [(3e5, 0.25), (6e5, 0.12), (2e6, 0.12), (2e7, 0.05), (2e9, 0.05)])
def test_the_family_is_mamba_and_as_large_as_asked_for(flops: float, within: float) -> None:
    config = shape(FAMILIES["mamba"], flops, Text(2048))
    (stage,) = config.stages
    assert stage.mixer == "mamba2"
    assert 32 <= stage.head_dim <= 64
    assert useful_flops_per_byte(config, 2048) == pytest.approx(flops, rel=within)


def test_the_papers_shape_is_in_proportion() -> None:
    paper = build(FAMILIES["mamba"], [2048], [50], Text(8192))
    (stage,) = shape(FAMILIES["mamba"], useful_flops_per_byte(paper, 8192), Text(8192)).stages
    assert (stage.dim, stage.layers) == (2048, 50)
    assert (stage.head_dim, stage.state_dim) == (64, 128)
