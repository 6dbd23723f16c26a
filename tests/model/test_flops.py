"""The counts against the paper's and against a count by hand."""

import pytest
import torch
from packs import random_pack, small_config, with_layers_up, with_lookups, with_qk_norm

from aunet.config import AUNetConfig
from aunet.model.aunet import AUNet
from aunet.model.flops import (
    LLAMA_BYTES_PER_TOKEN_SQUARED,
    flops_per_byte,
    paper_flops,
    parts,
    stage_lengths,
    useful_flops,
    useful_flops_by_stage,
    useful_flops_per_byte,
    visible_pairs,
)
from aunet.presets import AUNET2_SCALING, AUNET3_SCALING, preset


def _model(name: str) -> AUNetConfig:
    return AUNetConfig.model_validate(preset(name)["model"])


def _parameters(config: AUNetConfig) -> int:
    return sum(p.numel() for p in AUNet.on_meta(config).parameters())


@pytest.mark.parametrize(
    ("name", "parameters", "flops"),
    [
        ("aunet2-1b", 1.32e9, 1.8e9),
        ("aunet3-1b", 2.49e9, 2.3e9),
        ("aunet4-1b", 4.15e9, 2.8e9),
        ("aunet2-8b", 7.96e9, 1.0e10),
    ],
)
def test_the_papers_models(name: str, parameters: float, flops: float) -> None:
    config = _model(name)
    assert [stage.contraction for stage in config.stages] == [1.0, 4.9, 7.3, 10.5][: len(config.stages)]
    assert _parameters(config) == pytest.approx(parameters, rel=0.02)
    assert flops_per_byte(config, 8192) == pytest.approx(flops, rel=0.05)


@pytest.mark.parametrize(("name", "flops"), [("aunet2-1e19", 2.4e8), ("aunet2-1e22", 7.3e9)])
def test_the_papers_scaling_rows(name: str, flops: float) -> None:
    assert flops_per_byte(_model(name), 8192) == pytest.approx(flops, rel=0.05)


@pytest.mark.parametrize(
    "name", [f"aunet{n}-{budget}" for n, rows in ((2, AUNET2_SCALING), (3, AUNET3_SCALING)) for budget in rows]
)
def test_scaling_budgets_round_to_their_names(name: str) -> None:
    flops = flops_per_byte(_model(name), 8192)
    budget = 10 * LLAMA_BYTES_PER_TOKEN_SQUARED * flops**2
    assert f"{budget:.0e}" == f"{float(name.split('-')[1]):.0e}"


def test_the_papers_baseline_counts_per_token() -> None:
    config = _model("transformer-bpe-1b")
    assert flops_per_byte(config, 4096) == pytest.approx(1.1e10, rel=0.05)
    assert _parameters(config) == pytest.approx(1.8e9, rel=0.02)


# One matrix or attention layer at a time: (name of the part, stage) to weights and attention widths, by hand.
BLOCK_1 = 16 * (16 + 2 * 8) + 16 * 16 + 3 * 16 * 48  # kv_heads 2 of 4 heads of width 4
BLOCK_2 = 24 * 3 * 24 + 24 * 24 + 3 * 24 * 64


def test_paper_flops_by_hand() -> None:
    config = small_config(2)
    by_part = {(part.name, part.stage): value for part, value in paper_flops(AUNet.on_meta(config), 49).items()}
    attention_1, attention_2 = 6 * 16 * 5, 6 * 24 * min(49 / 4.9, 4)
    assert by_part == {
        ("embedding", 0): 0,
        ("contract", 0): pytest.approx(6 * BLOCK_1 + attention_1),
        ("pool", 0): pytest.approx(6 * 16 * 24 / 4.9),
        ("trunk", 1): pytest.approx((6 * BLOCK_2 + attention_2) / 4.9),
        ("upsample", 0): pytest.approx(6 * 16 * 24),
        ("expand", 0): pytest.approx(6 * BLOCK_1 + attention_1),
        ("head", 0): pytest.approx(6 * 16 * 258),
    }


@pytest.mark.parametrize(("upsampling", "map_positions"), [("multilinear", 12), ("repeat", 5), ("simple", 5)])
def test_useful_flops_by_hand(upsampling: str, map_positions: int) -> None:
    """Documents of 7 and 5 bytes with 2 and 3 units; windows 5 and 4."""
    config = small_config(2, upsampling=upsampling)
    pairs_1 = (15 + 2 * 5) + 15
    pairs_2 = 3 + 6
    stage_1 = 2 * (6 * BLOCK_1 * 12 + 12 * 16 * pairs_1) + 6 * 16 * 258 * 12
    stage_1 += 6 * 16 * 24 * 5 + 6 * 16 * 24 * map_positions
    stage_2 = 6 * BLOCK_2 * 5 + 12 * 24 * pairs_2
    lengths = [[7, 5], [2, 3]]
    assert useful_flops_by_stage(config, lengths) == [stage_1, stage_2]
    assert useful_flops(config, lengths) == stage_1 + stage_2


def test_useful_flops_of_the_benchmark() -> None:
    config = _model("aunet2-23m")
    assert _parameters(config) == pytest.approx(23.27e6, rel=0.01)
    flops = useful_flops(config, [[2048] * 4, [430] * 4]) / (4 * 2048)
    assert flops == pytest.approx(40e6, rel=0.03)
    # Padding the trunk to 640 units, as the reference does, is not useful.
    assert useful_flops(config, [[2048] * 4, [640] * 4]) / (4 * 2048) > 1.25 * flops


def test_useful_flops_per_byte_is_one_document_at_the_expected_contraction() -> None:
    config = _model("aunet3-2m")
    expected = useful_flops(config, [[2048], [round(2048 / 4.9)], [round(2048 / 7.3)]]) / 2048
    assert useful_flops_per_byte(config, 2048) == expected


def test_lists_of_lengths_must_fit_the_stages() -> None:
    with pytest.raises(ValueError, match="3 stages need as many lists of lengths, not 1"):
        useful_flops(small_config(3), [[5]])


@pytest.mark.parametrize("window", [None, 1, 3, 10, 50])
def test_visible_pairs_equal_a_count(window: int | None) -> None:
    lengths = [1, 2, 9, 10, 11, 37]
    counted = sum(min(t + 1, window or t + 1) for length in lengths for t in range(length))
    assert visible_pairs(lengths, window) == counted


@pytest.mark.parametrize("stages", [1, 2, 3, 4])
@pytest.mark.parametrize("upsampling", ["multilinear", "repeat", "simple"])
def test_parts_hold_every_parameter_once(stages: int, upsampling: str) -> None:
    model = AUNet.on_meta(small_config(stages, upsampling=upsampling))
    found = parts(model)
    assert sum(part.parameters for part in found) == sum(p.numel() for p in model.parameters())
    names = [(part.name, part.stage) for part in found]
    down = [(name, s) for s in range(stages - 1) for name in ("contract", "pool")]
    up = [(name, s) for s in reversed(range(stages - 1)) for name in ("upsample", "expand")]
    assert names == [("embedding", 0), *down, ("trunk", stages - 1), *up, ("head", 0)]


@pytest.mark.parametrize("deepen", [0.0, 0.4, 1.0])
def test_stage_lengths_of_a_batch(deepen: float) -> None:
    pack = random_pack(2, [9, 1, 30], deepen=deepen)
    lengths = stage_lengths(pack.levels, pack.starts, pack.counts)
    expected = [[int((pack.document(n).levels >= s).sum()) for n in range(3)] for s in range(3)]
    assert lengths == expected
    assert [sum(stage) for stage in lengths] == pack.counts
    assert torch.equal(pack.levels, random_pack(2, [9, 1, 30], deepen=deepen).levels)


@pytest.mark.parametrize("stages", [1, 3])
def test_lookups_count_as_parameters_and_cost_no_flops(stages: int) -> None:
    config = small_config(stages)
    looked_up = with_lookups(config)
    tables = [part.parameters for part in parts(AUNet.on_meta(looked_up)) if part.name == "lookup"]
    assert tables == [3 * 50 * 16, 2 * 51 * 24, 2 * 52 * 32][:stages]
    assert _parameters(looked_up) == _parameters(config) + sum(tables)
    assert flops_per_byte(looked_up, 100) == flops_per_byte(config, 100)
    assert useful_flops_per_byte(looked_up, 100) == useful_flops_per_byte(config, 100)


def test_norms_of_queries_and_keys_are_parameters_without_flops() -> None:
    plain, normed = small_config(3), with_qk_norm(small_config(3))
    assert _parameters(normed) - _parameters(plain) == 2 * (2 * 4 + 2 * 8 + 8)  # gains of two, by blocks and head width
    assert flops_per_byte(normed, 64) == flops_per_byte(plain, 64)
    assert useful_flops_per_byte(normed, 64) == useful_flops_per_byte(plain, 64)


def test_blocks_on_the_way_up_are_paid_for_by_their_number() -> None:
    plain, other = small_config(3), with_layers_up(small_config(3))
    values = [
        {(part.name, part.stage): found for part, found in paper_flops(AUNet.on_meta(config), 64).items()}
        for config in (plain, other)
    ]
    ratios = {key: values[1][key] / values[0][key] for key in values[0] if values[0][key]}
    assert ratios.pop(("expand", 0)) == 2
    assert ratios.pop(("expand", 1)) == 0
    assert set(ratios.values()) == {1}
    assert useful_flops_per_byte(other, 64) > useful_flops_per_byte(plain, 64)
