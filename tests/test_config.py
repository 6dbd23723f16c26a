"""Configurations: what is filled in, what is refused and how it is said, overrides, files."""

from pathlib import Path
from typing import Any

import pytest

from aunet.config import PAPER_CONTRACTION, AUNetConfig, DataConfig, RunConfig, StageConfig, TrainConfig, ffn_width
from aunet.errors import ConfigError
from aunet.mappings import apply_overrides, read_mapping, validate

STAGE = {"dim": 16, "layers": 1, "head_dim": 8}


def _model(stages: int, splitter: str, **more: Any) -> AUNetConfig:
    return AUNetConfig.model_validate({"stages": [STAGE] * stages, "splitter": splitter, **more})


def test_what_is_left_out_is_filled_in() -> None:
    stage = StageConfig.model_validate({"dim": 512, "layers": 3, "head_dim": 64})
    assert (stage.heads, stage.kv_heads, stage.ffn_dim, stage.window) == (8, 8, 1536, None)
    assert (
        StageConfig.model_validate({"dim": 16, "layers": 1, "head_dim": 4, "kv_heads": 2, "ffn_dim": 8}).kv_heads == 2
    )


@pytest.mark.parametrize(("dim", "width"), [(2048, 5632), (3072, 8192), (4608, 12288), (4096, 11008), (256, 768)])
def test_feed_forward_widths_follow_the_papers_table(dim: int, width: int) -> None:
    assert ffn_width(dim) == width


def test_contraction_is_the_papers_for_words_and_the_width_for_fixed() -> None:
    words = _model(4, "word1+word2+word4")
    assert tuple(stage.contraction for stage in words.stages) == PAPER_CONTRACTION
    fixed = _model(3, "fixed-4+fixed-16")
    assert [stage.contraction for stage in fixed.stages] == [1.0, 4.0, 16.0]
    own = AUNetConfig.model_validate({"stages": [STAGE, {**STAGE, "contraction": 3.5}], "splitter": "word1"})
    assert own.stages[1].contraction == 3.5


@pytest.mark.parametrize(
    ("splitter", "contractions"),
    [
        ("fixed-4+fixed-6", [1, 4, 12]),
        ("fixed-8+fixed-4", [1, 8, 8]),
        ("word4", [1, 10.5]),
        ("word1+word4", [1, 4.9, 10.5]),
        ("pretok+word3+word8", [1, 4.9, 7.3, 10.5]),
        ("word1+fixed-4", [1, 4.9, 19.6]),
        ("fixed-8+word1+word2", [1, 8, 39.2, 58.4]),
        ("word1+fixed-4+fixed-6", [1, 4.9, 19.6, 58.8]),
    ],
)
def test_a_unit_of_a_stack_ends_where_all_its_rules_pool(splitter: str, contractions: list[float]) -> None:
    model = _model(len(contractions), splitter)
    assert [stage.contraction for stage in model.stages] == pytest.approx(contractions)


def test_the_contraction_of_a_stage_is_not_below_one_that_is_given() -> None:
    stages = [STAGE, {**STAGE, "contraction": 9.0}, STAGE]
    model = AUNetConfig.model_validate({"stages": stages, "splitter": "word1+word2"})
    assert [stage.contraction for stage in model.stages] == [1.0, 9.0, 9.0]


def test_a_stage_of_mamba_has_a_state_and_no_feed_forward() -> None:
    stage = StageConfig.model_validate({"dim": 64, "layers": 2, "head_dim": 64, "mixer": "mamba2"})
    assert (stage.heads, stage.state_dim, stage.kv_heads, stage.ffn_dim, stage.window) == (2, 128, 0, 0, None)
    assert StageConfig.model_validate(STAGE).state_dim == 0


def test_what_is_never_compiled_is_not_asked_to_be() -> None:
    mamba, compiled = {**STAGE, "mixer": "mamba2"}, {"compile": True}
    with pytest.raises(ConfigError, match=r"train\.compile: blocks of the mixer mamba2 are not compiled; leave it out"):
        validate(RunConfig, {"model": {"stages": [mamba]}, "train": compiled}, "file")
    assert validate(RunConfig, {"model": {"stages": [mamba, STAGE], "splitter": "word1"}, "train": compiled}, "file")


@pytest.mark.parametrize("mixer", ["attention", "mamba2"])
def test_a_configuration_survives_json(mixer: str) -> None:
    stages = [STAGE, {**STAGE, "mixer": mixer}]
    config = RunConfig.model_validate({"model": {"stages": stages, "splitter": "word1"}})
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stages": []}, "stages: tuple should have at least 1 item"),
        ({"stages": [STAGE, STAGE]}, "2 stages need a splitter with 1 levels; '' has 0"),
        ({"stages": [STAGE], "splitter": "word1"}, "1 stages need a splitter with 0 levels; 'word1' has 1"),
        ({"stages": [{**STAGE, "head_dim": 5}]}, "stages.0: head_dim 5 does not divide dim 16"),
        ({"stages": [{**STAGE, "dim": 15, "head_dim": 5}]}, "stages.0: head_dim 5 is odd"),
        ({"stages": [{**STAGE, "dim": 48, "kv_heads": 4}]}, "kv_heads 4 does not divide the 6 heads"),
        ({"stages": [{**STAGE, "state_dim": 4}]}, "stages.0: the mixer attention has no state_dim; leave that out"),
        (
            {"stages": [{**STAGE, "mixer": "mamba2", "window": 9, "ffn_dim": 8, "kv_heads": 1}]},
            "stages.0: the mixer mamba2 has no ffn_dim and no window and no kv_heads; leave that out",
        ),
        ({"stages": [{**STAGE, "mixer": "mamba2", "head_dim": 5}]}, "head_dim 5 does not divide 2 dim = 32"),
        ({"stages": [{**STAGE, "mixer": "mamba"}]}, "stages.0.mixer: input should be 'attention' or 'mamba2'"),
        ({"stages": [{**STAGE, "window": 0}]}, "stages.0.window: input should be greater than 0 (given: 0)"),
        (
            {"stages": [STAGE], "upsampling": "linear"},
            "upsampling: input should be 'multilinear', 'repeat' or 'simple'",
        ),
        ({"stages": [STAGE] * 2, "splitter": "fixed-0"}, "splitter: 'fixed-0' is no rule; fixed windows are fixed-W"),
        ({"stages": [STAGE] * 2, "splitter": "fixed-four"}, "'fixed-four' is no rule; fixed windows are fixed-W"),
        ({"stages": [STAGE], "rope_theta": float("inf")}, "rope_theta: input should be a finite number"),
        (
            {"stages": [STAGE, {**STAGE, "contraction": 4}, {**STAGE, "contraction": 3}], "splitter": "word1+word2"},
            "stages.2.contraction is below the one of stages.1",
        ),
        (
            {"stages": [{**STAGE, "contraction": 4.5}]},
            "stages.0.contraction: a unit of the first stage is one byte; leave it out",
        ),
        ({"stages": [{**STAGE, "window": 10**20}]}, "stages.0.window: input should be less than"),
        (
            {"stages": [{**STAGE, "lookup": {"ngrams": [10**12], "buckets": 9}}]},
            "stages.0.lookup.ngrams.0: input should be less than",
        ),
        ({"stage": [STAGE]}, "unknown key stage; did you mean stages?"),
        ({"stages": [{**STAGE, "heads_dim": 8}]}, "unknown key stages.0.heads_dim; did you mean stages.0.head_dim?"),
        ({"stages": ["dim"]}, "stages.0: expected a mapping with dim, layers, head_dim (given: 'dim')"),
        ({"stages": "dim"}, "stages: expected a list (given: 'dim')"),
        ({"stages": [STAGE], "zzz": 1}, "unknown key zzz; known here: vocab_size, stages, splitter"),
    ],
)
def test_models_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(AUNetConfig, values, "file.yaml")
    assert message in str(caught.value)
    assert all(line.startswith("file.yaml: ") for line in str(caught.value).splitlines())


def test_all_problems_are_told_at_once() -> None:
    values = {
        "model": {"stages": [{**STAGE, "layers": -1}, {"dim": 16}], "splitter": "word1"},
        "train": {"lr": 0, "stpes": 3, "betas": [0.9, 1.0], "threads": 100_000},
        "data": {"seq_len": 1},
    }
    with pytest.raises(ConfigError) as caught:
        validate(RunConfig, values, "x")
    lines = str(caught.value).splitlines()
    for start in (
        "x: model.stages.0.layers",
        "x: model.stages.1.layers",
        "x: model.stages.1.head_dim",
        "x: train.lr",
        "x: train.threads: input should be less than or equal to 1024",
        "x: unknown key train.stpes; did you mean train.steps?",
        "x: train.betas.1: input should be less than 1",
        "x: data.seq_len",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert len(lines) == 8


@pytest.mark.parametrize("key", ["steps", "lr", "betas", "keep", "stage_lr"])
def test_true_is_no_number(key: str) -> None:
    values: dict[str, Any] = {key: [True, 0.5] if key in ("betas", "stage_lr") else True, "recompute": [True, False]}
    with pytest.raises(ConfigError) as caught:
        validate(TrainConfig, values, "x")
    assert str(caught.value) == f"x: {key}: expected a number, not true or false"
    assert validate(TrainConfig, {"compile": True, "recompute": [True, False]}, "x").recompute == (True, False)


def test_one_length_of_a_run_at_most() -> None:
    assert validate(TrainConfig, {"steps": 3}, "x").steps == 3
    with pytest.raises(ConfigError, match="give one of steps, bytes, compute, gamma, not steps and gamma"):
        validate(TrainConfig, {"steps": 3, "gamma": 1}, "x")


def test_mixing_is_by_weights_or_by_temperature() -> None:
    sources = [{"path": "a", "weight": 1}, {"path": "b"}]
    with pytest.raises(ConfigError, match="either all sources have a weight or none has"):
        validate(DataConfig, {"sources": sources}, "x")
    with pytest.raises(ConfigError, match=r"sources\.0\.weight: .*1000000000"):
        validate(DataConfig, {"sources": [{"path": "a", "weight": 1e308}, {"path": "b", "weight": 1e308}]}, "x")
    with pytest.raises(ConfigError, match="temperature and weights exclude each other"):
        validate(DataConfig, {"sources": sources[:1], "temperature": 2}, "x")


def test_overrides_reach_lists_and_new_sections() -> None:
    values = {"model": {"stages": [{"dim": 1}, {"dim": 2}]}}
    result = apply_overrides(values, ["model.stages.1.dim=64", "train.lr=1e-3", "train.betas=[0.8, 0.9]", "a.b=null"])
    assert result == {
        "model": {"stages": [{"dim": 1}, {"dim": 64}]},
        "train": {"lr": 1e-3, "betas": [0.8, 0.9]},
        "a": {"b": None},
    }
    assert values == {"model": {"stages": [{"dim": 1}, {"dim": 2}]}}


def test_overrides_reach_below_what_is_null() -> None:
    values = {"model": {"stages": [{"lookup": None}, None]}, "train": None}
    overrides = ["model.stages.0.lookup.buckets=9", "model.stages.1.dim=8", "train.lr=1e-3"]
    assert apply_overrides(values, overrides) == {
        "model": {"stages": [{"lookup": {"buckets": 9}}, {"dim": 8}]},
        "train": {"lr": 1e-3},
    }


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lr", "'train.lr' is not KEY=VALUE; write for instance train.lr=1e-3"),
        ("=3", "'=3' is not KEY=VALUE"),
        ("model.stages.5.dim=3", "model.stages.5.dim: '5' is not a place in a list of 1"),
        ("model.stages.x.dim=3", "'x' is not a place in a list of 1"),
        ("model.stages.0.dim.x=3", "model.stages.0.dim.x: dim is a value and has no keys below it"),
        ("train.betas=[1", "train.betas: '[1' is not valid YAML"),
        ("train.seed=0x_", "train.seed: '0x_' is not valid YAML"),
        ("train.compile=!!bool abc", "train.compile: '!!bool abc' is not valid YAML"),
        ("train.out=!!timestamp abc", "train.out: '!!timestamp abc' is not valid YAML"),
        ("train.betas=" + 5000 * "[", "is not valid YAML"),
        ("model.stages.².dim=3", "'²' is not a place in a list of 1"),
    ],
)
def test_overrides_that_cannot_be_set(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"model": {"stages": [{"dim": 1}]}}, [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+3", -2500.0), ("1e", "1e"), (".5e1", 5), ("2026-13-45", "2026-13-45")],
)
def test_yaml_reads_exponents_as_numbers_and_dates_as_texts(text: str, value: Any) -> None:
    assert apply_overrides({}, [f"x={text}"]) == {"x": value}


def test_files_are_read_as_yaml_or_json(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("train: {lr: 1e-3}\nday: 2025-06-17\n")
    assert read_mapping(tmp_path / "a.yaml") == {"train": {"lr": 1e-3}, "day": "2025-06-17"}
    (tmp_path / "a.json").write_text('{"train": {"lr": 1e-3}}')
    assert read_mapping(tmp_path / "a.json") == {"train": {"lr": 1e-3}}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", b"train: {lr: 1\n", "not valid YAML: .*line 2"),
        ("a.json", b'{\n"a": }', "not valid JSON: .*line 2"),
        ("a.yaml", b"- 1\n", "expected a mapping with the keys model, data, train"),
        ("a.yaml", b"", "expected a mapping"),
        ("a.yaml", b"\xff\xfe\x00", "not valid YAML"),
        ("a.yaml", b"train: {lr: 1}\ndata: {}\ntrain: {}\n", "not valid YAML: the key train stands twice .*line 3"),
        ("a.json", b'{"train": {"lr": 1, "lr": 2}}', "not valid JSON: the key lr stands twice"),
        ("a.json", b"\xff", "not valid JSON"),
        ("a.json", b"[" * 100_000, "not valid JSON"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: No such file"):
        read_mapping(tmp_path / "gone.yaml")


def test_a_table_is_named_once() -> None:
    lookup = {"ngrams": [2, 2], "buckets": 10}
    values = {"stages": [{"dim": 8, "layers": 1, "head_dim": 8, "lookup": lookup}]}
    with pytest.raises(
        ConfigError, match=r"a\.yaml: stages\.0\.lookup: .*ngrams \[2, 2\] names a length twice"
    ) as caught:
        validate(AUNetConfig, values, "a.yaml")
    assert "\n" not in str(caught.value)


def test_learning_rates_of_stages_are_as_many_as_stages() -> None:
    stages = [{"dim": 8, "layers": 1, "head_dim": 8}] * 2
    values = {"model": {"stages": stages, "splitter": "word1"}, "train": {"stage_lr": [0.5, 1]}}
    assert validate(RunConfig, values, "x").train.stage_lr == (0.5, 1.0)
    values["train"] = {"stage_lr": [1.0]}
    with pytest.raises(ConfigError, match=r"x: train\.stage_lr: 1 for 2 stages; give one for each") as caught:
        validate(RunConfig, values, "x")
    assert "\n" not in str(caught.value)
    values["train"] = {"stage_lr": [0, 1]}
    with pytest.raises(ConfigError, match=r"x: train\.stage_lr\.0: input should be greater than 0"):
        validate(RunConfig, values, "x")


def test_the_deepest_stage_has_no_way_up() -> None:
    stages: list[dict[str, Any]] = [{"dim": 8, "layers": 1, "head_dim": 8, "layers_up": 2} for _ in range(2)]
    with pytest.raises(ConfigError, match=r"^x: stages\.1\.layers_up: the deepest stage has no way up") as caught:
        validate(AUNetConfig, {"stages": stages, "splitter": "word1"}, "x")
    assert "\n" not in str(caught.value)
    del stages[1]["layers_up"]
    config = validate(AUNetConfig, {"stages": stages, "splitter": "word1"}, "x")
    assert [config.layers(s) for s in range(2)] == [(1, 2), (1,)]
    stages[0]["layers_up"] = None
    assert validate(AUNetConfig, {"stages": stages, "splitter": "word1"}, "x").layers(0) == (1, 1)


def test_known_ngrams_need_a_row() -> None:
    lookup = {"ngrams": [2], "buckets": 1, "known": True}
    values = {"stages": [{"dim": 8, "layers": 1, "head_dim": 8, "lookup": lookup}]}
    with pytest.raises(ConfigError, match=r"a\.yaml: stages\.0\.lookup: .*give more buckets"):
        validate(AUNetConfig, values, "a.yaml")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model", "offsets", 10**12),
        ("train", "seed", 10**23),
        ("train", "seed", -1),
        ("train", "steps", 10**400),
        ("train", "batch_bytes", 1e308),
        ("data", "seq_len", 10**20),
        ("data", "seed", 1 << 63),
    ],
)
def test_numbers_that_no_machine_can_hold_are_refused(section: str, key: str, value: float) -> None:
    values: dict[str, Any] = {"model": {"stages": [STAGE]}}
    values[section] = values.get(section, {}) | {key: value}
    with pytest.raises(ConfigError, match=rf"run: {section}\.{key}: input should be (less|greater) than"):
        validate(RunConfig, values, "run")
