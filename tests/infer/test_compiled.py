"""Compiled steps against the full forward pass."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from aunet.bytes import BOS
from aunet.compiler import CPP_COMPILERS
from aunet.config import AUNetConfig
from aunet.infer.compiled import product
from aunet.infer.state import Session
from aunet.language_model import LanguageModel
from aunet.splitting import splitter
from tests.model.packs import small_config, small_model
from tests.runs import command, environment

compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in CPP_COMPILERS), reason="torch.compile needs a C++ compiler"
)
TEXTS = [b"One two, three 1234567 four!? " * 4, b"a" * 70 + b" " + b"b" * 40, "naïve 漢字 – é\n".encode() * 6]


def grouped_config() -> AUNetConfig:
    """Two stages with narrow rings (one that is full soon, one that grows) and shared key/value heads."""
    values = small_config(2, splitter="word1").model_dump(mode="json")
    for stage, window in zip(values["stages"], (7, None), strict=True):
        stage.update(window=window, kv_heads=1)
    return AUNetConfig.model_validate(values)


@compiler
def test_compiled_steps_equal_the_forward_pass() -> None:
    config = grouped_config()
    network = small_model(config).eval()
    session = Session(network, splitter("word1"), compile=True)
    plain = LanguageModel(network)
    for texts in (TEXTS[:1], TEXTS):
        # Different points of different texts: units end at different steps, for one, several or no member.
        state = session.start(len(texts))
        found: list[list[Tensor]] = [
            [rows] for rows in session.extend(state, [[BOS, *t[: 3 * b]] for b, t in enumerate(texts)])
        ]
        for i in range(90):
            logits = session.step(state, [text[3 * b + i] for b, text in enumerate(texts)])
            for rows, row in zip(found, logits.split(1), strict=True):
                rows.append(row)
            if i == 40:
                state = state.copy(range(len(texts)))
        for b, (text, rows) in enumerate(zip(texts, found, strict=True)):
            whole = plain.logits([[BOS, *text[: 3 * b + 90]]])[0]
            assert float((torch.cat(rows) - whole).abs().max()) < 1e-4


@compiler
def test_a_compiled_model_generates_the_same_bytes() -> None:
    network = small_model(grouped_config()).eval()
    prompts = ["One two", "a"]
    expected = LanguageModel(network).generate(prompts, max_bytes=40, seed=3, as_bytes=True)
    assert LanguageModel(network, compile=True).generate(prompts, max_bytes=40, seed=3, as_bytes=True) == expected


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("outputs", [16, 258, 512])
def test_the_product_by_blocks_is_the_linear_map(vectors: int, outputs: int) -> None:
    linear = torch.nn.Linear(24, outputs, bias=False)
    x_MD = torch.randn(vectors, 24)
    assert torch.allclose(product(x_MD, linear), linear(x_MD), atol=1e-5)


def test_without_a_compiler_one_line_names_the_flag(tmp_path: Path) -> None:
    LanguageModel(small_model(grouped_config())).save(tmp_path / "model")
    generate = command("generate", tmp_path / "model", "--compile")
    result = subprocess.run(generate, capture_output=True, text=True, env={**environment(), "PATH": str(tmp_path)})
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "compile: torch.compile needs a C++ compiler" in result.stderr
