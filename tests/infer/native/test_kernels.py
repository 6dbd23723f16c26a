"""The compiled kernels: the same to the last bit in any company, faithful to eager torch in every number format."""

import copy
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from aunet.bytes import BOS
from aunet.config import AUNetConfig
from aunet.infer.engine import Engine
from aunet.infer.native.build import available
from aunet.infer.native.kernels import NativeKernels, Panels
from aunet.infer.request import Request
from aunet.infer.sampling import Sampling
from aunet.infer.session import Session
from aunet.infer.weights import convert, weight_bytes
from aunet.language_model import LanguageModel
from aunet.model.aunet import AUNet
from aunet.splitting import splitter
from tests.model.packs import small_model

pytestmark = pytest.mark.skipif(not available(), reason="the compiled kernels need a C++ compiler")
TEXT = b"One two, three 1234567 four!? \xff naive. " * 12
TASKS = Path("/proc/self/task")
"""Of every thread of this process, a directory."""


@cache
def network(kv_heads: int = 0, qk_norm: bool = False) -> AUNet:
    """Wide enough that two threads share the work: both stages have whole panels and a rest."""
    stages = [
        {"dim": 72, "layers": 2, "head_dim": 12, "window": 70, "kv_heads": kv_heads, "qk_norm": qk_norm},
        {"dim": 520, "layers": 2, "head_dim": 40, "ffn_dim": 1030, "qk_norm": qk_norm},
    ]
    return small_scale(AUNetConfig.model_validate({"stages": stages, "splitter": "word1"}))


def small_scale(config: AUNetConfig) -> AUNet:
    model = AUNet(config)
    model.initialise(0)
    with torch.no_grad():
        for stage in model.stages:
            stage.upsample.per_offset.normal_(std=0.02, generator=torch.Generator().manual_seed(1))
        for name, gain in model.named_parameters():
            if "q_norm" in name or "k_norm" in name:
                gain.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(2))
    return model.eval()


def session(model: AUNet) -> Session:
    return Session(model, splitter(model.config.splitter), NativeKernels(model))


def whole(model: AUNet, data: bytes) -> torch.Tensor:
    return LanguageModel(model, native=False).logits([[BOS, *data]])[0]


@pytest.mark.parametrize(("kv_heads", "qk_norm"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_those_of_the_forward_pass(
    kv_heads: int, qk_norm: bool, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    model = network(kv_heads, qk_norm)
    reading = session(model)
    state = reading.start(1)
    (first,) = reading.extend(state, [[BOS, *TEXT[:300]]])
    rest = [reading.step(state, [byte]) for byte in TEXT[300:]]
    assert float((torch.cat([first, *rest]) - whole(model, TEXT)).abs().max()) < 1e-4


@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_neither_batch_nor_pieces_nor_threads_change_a_bit(weights: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if weights == "int8":
        pytest.importorskip("torchao")
    reading = session(convert(copy.deepcopy(network(2, qk_norm=True)), weights))
    results = []
    for threads in (1, 2):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        alone = reading.start(1)
        by_byte = torch.cat([reading.step(alone, [i]) for i in [BOS, *TEXT[:200]]])
        at_once = reading.extend(reading.start(1), [[BOS, *TEXT[:200]]])[0]
        company = reading.start(5)
        together = torch.cat(
            [
                reading.extend(company, [[BOS, *TEXT], [BOS], [BOS, *TEXT[:7]], [BOS, *TEXT[7:30]], [BOS, *TEXT[:50]]])[
                    4
                ],
                *(reading.step(company, [TEXT[i], 65, 32, i % 256, TEXT[i]])[4:] for i in range(50, 200)),
            ]
        )
        assert torch.equal(by_byte, at_once)
        assert torch.equal(by_byte, together)
        results.append(by_byte)
    assert torch.equal(*results)


def test_bf16_and_int8_are_near_eager_torch() -> None:
    pytest.importorskip("torchao")
    exact = whole(network(), TEXT)
    sizes = {}
    for weights, bound in (("bf16", 0.05), ("int8", 0.05)):
        converted = convert(copy.deepcopy(network()), weights)
        sizes[weights] = weight_bytes(converted)
        found = session(converted).extend(session(converted).start(1), [[BOS, *TEXT]])[0]
        assert found.dtype == torch.float32
        assert float((found - exact).abs().mean()) < bound * float(exact.std())
        assert not torch.equal(found, exact)
        if weights == "int8":  # the same rounded weights, multiplied by torchao
            eager = whole(converted, TEXT)
            assert float((found - eager).abs().max()) < 1e-3 * float(exact.std())
    full = weight_bytes(network())
    assert sizes["bf16"] == full / 2
    assert sizes["int8"] < 0.4 * full


@pytest.mark.parametrize("outputs", [1, 15, 16, 50])
def test_panels_hold_every_output_once(outputs: int) -> None:
    weight = torch.arange(outputs * 3.0).reshape(outputs, 3)
    panels = Panels.of(weight)
    assert panels.values.shape == (1, -(-outputs // 16), 3, 16)
    back = panels.values[0].transpose(1, 2).reshape(-1, 3)
    assert torch.equal(back[:outputs], weight)
    assert not back[outputs:].any()


def test_threads_of_a_program_may_read_at_the_same_time() -> None:
    reading, expected = session(network()), whole(network(), TEXT)
    found: dict[int, torch.Tensor] = {}

    def read(number: int) -> None:
        found[number] = reading.extend(reading.start(1), [[BOS, *TEXT]])[0]

    workers = [threading.Thread(target=read, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(float((found[i] - expected).abs().max()) < 1e-4 for i in range(4))


@pytest.mark.skipif(not TASKS.is_dir(), reason="threads that are not Python's are counted by Linux")
def test_threads_that_another_number_replaces_end() -> None:
    reading, before = session(network()), torch.get_num_threads()

    def left() -> int:
        for threads in (2, 3):
            torch.set_num_threads(threads)
            reading.extend(reading.start(1), [[BOS, *TEXT]])
        return len(list(TASKS.iterdir()))

    try:
        assert left() == left() == left()
    finally:
        torch.set_num_threads(before)


def test_a_model_whose_weights_change_is_prepared_anew() -> None:
    model = LanguageModel(copy.deepcopy(network()), native=True)
    before = model.session()
    assert model.session() is before
    with torch.no_grad():
        model.network.head.weight.mul_(2)
    found = model.session().extend(model.session().start(1), [[BOS, *TEXT[:20]]])[0]
    assert model.session() is not before
    assert float((found - model.logits([[BOS, *TEXT[:20]]])[0]).abs().max()) < 1e-4


class Doubled(nn.Linear):
    def forward(self, x_TD: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x_TD)


def test_another_module_around_the_same_weights_is_noticed() -> None:
    model = LanguageModel(copy.deepcopy(network()), native=True)
    before = model.session()
    ffn = model.network.trunk.blocks[0].ffn
    doubled = Doubled(ffn.down.in_features, ffn.down.out_features, bias=False)
    doubled.weight, ffn.down = ffn.down.weight, doubled
    assert model.session() is not before
    found = model.session().extend(model.session().start(1), [[BOS, *TEXT[:20]]])[0]
    assert float((found - model.logits([[BOS, *TEXT[:20]]])[0]).abs().max()) < 1e-4


def test_the_engine_reads_the_same_bits_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    histories: list[list[bytes]] = []
    original = Sampling.draw

    def noted(self: Sampling, logits_V: Any, generator: Any) -> int:
        if self.seed == 77:
            histories[-1].append(logits_V.tobytes())
        return original(self, logits_V, generator)

    monkeypatch.setattr(Sampling, "draw", noted)
    for company in (0, 6):
        histories.append([])
        engine = Engine(session(network()))
        for i in range(company):
            engine.submit(Request(TEXT[: 40 * i], 60, Sampling(1.0, seed=i)))
            engine.step()
        engine.submit(Request(TEXT[:130], 30, Sampling(1.0, seed=77)))
        while engine.busy:
            engine.step()
    assert histories[0] == histories[1]
    assert len(histories[0]) > 5


def test_contexts_read_by_either_kernels_hold_the_same() -> None:
    model = small_model(AUNetConfig.model_validate(network().config.model_dump(mode="json")))
    native, eager = session(model), Session(model, splitter("word1"))
    a, b = native.start(1), eager.start(1)
    native.extend(a, [[BOS, *TEXT[:100]]])
    eager.extend(b, [[BOS, *TEXT[:100]]])
    for mine, other in zip(a.contexts[0].memories, b.contexts[0].memories, strict=True):
        assert (mine.seen, mine.offset, mine.first) == (other.seen, other.offset, other.first)
        kept = [torch.cat([page.data for page in memory.pages], dim=3) for memory in (mine, other)]
        used = mine.seen - 64 * mine.first  # what is behind was never written
        assert np.allclose(*(data[:, :, :, :used].numpy() for data in kept), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wrong", [-1, 258, 1 << 40])
def test_an_id_that_the_model_has_not_is_refused(wrong: int) -> None:
    """Its row would be read from memory of something else."""
    reading = session(network())
    state = reading.start(2)
    reading.step(state, [BOS, BOS])
    with pytest.raises(IndexError, match=f"an id is not from 0 to 257: {wrong}$"):
        reading.extend(state, [[65, 66], [66, wrong, 67]], levels=[[0, 0], [0, 0, 0]])
    with pytest.raises((IndexError, ValueError), match=str(wrong)):
        reading.step(state, [65, wrong])
