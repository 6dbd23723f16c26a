"""The Python face of a model: load, generate, measure, look inside.

Shapes: B rows of S ids, V vocabulary, n bytes, U units of a stage, D its width.

>>> config = AUNetConfig(
...     splitter="word1",
...     stages=(StageConfig(dim=16, layers=1, head_dim=8), StageConfig(dim=32, layers=1, head_dim=8)),
... )
>>> model = LanguageModel.random(config, seed=0)
>>> len(model.generate("Once ", max_bytes=5, seed=1, as_bytes=True)) <= 5
True
>>> model.bits_per_byte("Once upon a time") > 0
True
>>> model.logits([[256, 72, 105]]).shape
torch.Size([1, 3, 258])
>>> [unit.span for unit in model.encode("one two").stages[1].units]
[(0, 0), (0, 4)]
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from aunet.bytes import BOS, Text, to_bytes
from aunet.config import AUNetConfig, StageConfig
from aunet.errors import AUNetError, ConfigError, out_of_memory
from aunet.evals.bpb import Score, document_bits, score
from aunet.infer.eager import lay_out_for_reading
from aunet.infer.generate import collect, generate
from aunet.infer.native.build import available, library
from aunet.infer.native.kernels import KINDS, knows
from aunet.infer.reading import Reader
from aunet.infer.request import Event
from aunet.infer.sampling import Sampling
from aunet.infer.scoring import continuation_bits
from aunet.infer.session import Session, document_levels
from aunet.infer.weights import convert, require_full
from aunet.model.aunet import AUNet
from aunet.model.directory import load_model, save_model
from aunet.splitting import Splitter, splitter
from aunet.vocabulary import Vocabulary, vocabulary

__all__ = ["AUNetConfig", "Encoding", "LanguageModel", "StageConfig", "StageUnits", "Unit"]


@dataclass(frozen=True)
class Unit:
    """One unit of a stage: the bytes [start, end) that end at its pool position, after the unit before it."""

    span: tuple[int, int]
    data: bytes
    """These bytes; empty for the unit of BOS, which opens every stage."""


@dataclass(frozen=True)
class StageUnits:
    """The units of one stage and their vectors."""

    units: list[Unit]
    vectors_UD: Tensor
    """Output of the stage at each unit: after its blocks on the way up (in the trunk: after its blocks)."""
    open: tuple[int, int]
    """The bytes behind the last unit, which will belong to the next one."""


@dataclass(frozen=True)
class Encoding:
    """What a model makes of a text, from bytes to the trunk."""

    data: bytes
    levels: npt.NDArray[np.uint8]
    """How many poolings each byte survives, [n]."""
    stages: list[StageUnits]


class LanguageModel:
    """A network with its splitter, or its tokenizer. Texts are str (UTF-8) or bytes, which need not be valid UTF-8."""

    def __init__(self, network: AUNet, native: bool | None = None) -> None:
        self.splitter: Splitter = splitter(network.config.splitter)
        self.vocabulary: Vocabulary = vocabulary(network.config)
        on_cpu = network.head_weight.device.type == "cpu"
        if native and not on_cpu:
            raise ConfigError("native: the compiled kernels are for the CPU; leave it out on other devices")
        if native and not knows(network.config):
            raise ConfigError("native: the compiled kernels have no Mamba-2; leave it out for this model")
        dtype = network.head_weight.dtype
        if native and dtype not in KINDS:
            stored = str(dtype).removeprefix("torch.")
            raise ConfigError(f"native: the compiled kernels read no {stored}; leave it out, or take weights in bf16")
        known = knows(network.config) and dtype in KINDS
        if native:
            library()  # says why, where it cannot be had
        self.native = on_cpu and native is not False and known and available()
        self.network = (network if self.native else lay_out_for_reading(network)).eval()
        self._reader = Reader(self.native)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device = "cpu",
        weights: str = "fp32",
        native: bool | None = None,
    ) -> "LanguageModel":
        """Read a model directory; AUNetError names what is missing or damaged.

        `weights`: fp32, bf16, or int8 (needs torchao). `native`: read by kernels that the machine's C++ compiler
        builds once, for the CPU; True requires them, False goes without, None takes them where they can be had.
        """
        with _usable(device):
            network = load_model(Path(path), torch.device(device))
        return cls(convert(network, weights), native)

    @classmethod
    def random(
        cls,
        config: AUNetConfig,
        seed: int = 0,
        device: str | torch.device = "cpu",
        weights: str = "fp32",
        native: bool | None = None,
    ) -> "LanguageModel":
        """An untrained model."""
        network = AUNet(config)
        network.initialise(seed)
        with _usable(device):
            network = network.to(device)
        return cls(convert(network, weights), native)

    def save(self, path: str | Path) -> None:
        """Write a model directory; a model card that is there is kept, and tells if it is of another architecture."""
        require_full(self.network, "save")
        save_model(self.network, Path(path))

    @property
    def config(self) -> AUNetConfig:
        """The architecture."""
        return self.network.config

    def session(self) -> Session:
        """The network prepared for reading; kept until its weights change."""
        return self._reader.session(self.network, self.splitter, self.vocabulary)

    @overload
    def generate(self, prompt: Text = ..., *, as_bytes: bool = ..., **options: Any) -> Any: ...
    @overload
    def generate(self, prompt: Sequence[Text], *, as_bytes: bool = ..., **options: Any) -> list[Any]: ...
    def generate(self, prompt: Text | Sequence[Text] = "", *, as_bytes: bool = False, **options: Any) -> Any:
        """Continue a prompt, or each prompt of a list: the new text, without the prompt.

        Options: max_bytes=256, temperature=0.8 (0: the likeliest), top_k, top_p, seed=0, stop (not in the result).
        The i-th prompt of a list draws with seed + i. `as_bytes`: the raw bytes instead of valid text.
        """
        single = isinstance(prompt, Text)
        found = collect(self.stream(prompt, **options))
        results = [one.data if as_bytes else one.text for one in found]
        return results[0] if single else results

    def stream(
        self,
        prompt: Text | Sequence[Text] = "",
        *,
        max_bytes: int = 256,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int = 0,
        stop: Text | Sequence[Text] | None = None,
    ) -> Iterator[Event]:
        """The same as it comes: events with valid text and raw bytes."""
        prompts = [prompt] if isinstance(prompt, Text) else list(prompt)
        each = [Sampling(temperature, top_k, top_p, seed + i) for i in range(len(prompts))]
        return generate(self.session(), prompts, max_bytes, each, stop)

    def bits(self, text: Text) -> npt.NDArray[np.float64]:
        """Bits of each byte, or token, and, last, of the end of the document, [n + 1]."""
        return document_bits(self.session(), to_bytes(text))

    def continuation_bits(self, prompt: Text, continuations: Sequence[Text]) -> list[npt.NDArray[np.float64]]:
        """Bits of each byte, or token, of each continuation of one prompt, which is read once; ends do not count.

        AUNetError for a single text, whose characters would each be taken for a continuation.
        """
        if isinstance(continuations, Text):
            raise AUNetError("continuations: a single text; give a list, such as [text]")
        return continuation_bits(self.session(), to_bytes(prompt), [to_bytes(text) for text in continuations])

    def score(self, texts: Text | Iterable[Text]) -> Score:
        """Bits, bytes, characters and documents of whole documents."""
        documents = [texts] if isinstance(texts, Text) else texts
        return score(self.session(), (to_bytes(text) for text in documents))

    def bits_per_byte(self, texts: Text | Iterable[Text]) -> float:
        """Bits of all documents, their ends included, over their bytes; AUNetError if they are all empty."""
        return self.score(texts).bits_per_byte

    @torch.no_grad()
    def logits(self, input_ids: Any, levels: Any = None) -> Tensor:
        """Next-byte logits [B, S, V] of ids [B, S], one document per row; BOS is the caller's.

        `levels`, [B, S]: poolings that each position survives, by the model's own splitter if not given; never
        modified. Position 0 always has the highest level. A mark inside a row (BOS or EOS) has it too and starts the
        splitter anew, but the row stays one document. AUNetError for wrong shapes or values.
        """
        ids_BS = _integers("input_ids", input_ids)
        if ids_BS.dim() != 2:
            raise AUNetError(f"input_ids: expected integers of shape [B, S], not {list(ids_BS.shape)}")
        if not ids_BS.numel():
            return self.network.embedding.weight.new_empty((*ids_BS.shape, self.config.vocab_size))
        if int(ids_BS.min()) < 0 or int(ids_BS.max()) >= self.config.vocab_size:
            raise AUNetError(f"input_ids: every id must be from 0 to {self.config.vocab_size - 1}")
        device = self.network.head_weight.device
        if levels is None:
            levels_BS = torch.from_numpy(
                np.stack([document_levels(row, self.splitter) for row in ids_BS.cpu().numpy()])
            )
        else:
            levels_BS = self._given_levels(levels, ids_BS)
        batch, width = ids_BS.shape
        levels_T = levels_BS.flatten().to(device)
        counts = [batch * width, *(int((levels_T > s).sum()) for s in range(self.config.depth))]
        starts_N = torch.arange(batch + 1, device=device) * width
        logits_TV = self.network(ids_BS.flatten().to(device), levels_T, starts_N, counts, width)
        return logits_TV.unflatten(0, (batch, width))

    def _given_levels(self, levels: Any, ids_BS: Tensor) -> Tensor:
        levels_BS = _integers("levels", levels)
        if levels_BS.shape != ids_BS.shape:
            raise AUNetError(
                f"levels: expected the shape of input_ids {list(ids_BS.shape)}, not {list(levels_BS.shape)}"
            )
        if int(levels_BS.min()) < 0 or int(levels_BS.max()) > self.config.depth:
            raise AUNetError(f"levels: every level must be from 0 to {self.config.depth}, the stages below the first")
        levels_BS = levels_BS.to(torch.uint8, copy=True)
        levels_BS[:, 0] = self.config.depth
        return levels_BS

    def encode(self, text: Text) -> Encoding:
        """The units of each stage with their byte spans and hidden vectors, for people who study tokenization.

        AUNetError for a model over tokens, which has no units of its own; `vocabulary.encode` gives the tokens.
        """
        require_bytes(self.config, "encode")
        data = to_bytes(text)
        session, hidden = self.session(), []  # type: tuple[Session, list[Tensor]]
        levels_n = self.splitter.levels(data)
        levels_T = np.concatenate([[self.config.depth], levels_n])
        session.extend(session.start(1), [[BOS, *data]], [levels_T], hidden)
        stages = []
        for s, vectors_UD in enumerate(hidden):
            # Position t reads byte t - 1, so a unit pooled at position t ends before byte t.
            ends = np.flatnonzero(levels_T >= s).tolist()
            starts = [0, *ends[:-1]]
            units = [Unit((a, b), data[a:b]) for a, b in zip(starts, ends, strict=True)]
            stages.append(StageUnits(units, vectors_UD.clone(), (ends[-1], len(data))))
        return Encoding(data, levels_n, stages)


def require_bytes(config: AUNetConfig, action: str) -> None:
    """AUNetError, which names `action`, for a model over tokens."""
    if config.unit != "byte":
        raise AUNetError(f"{action}: is for models over bytes, and this one reads tokens; generate, eval and info work")


@contextmanager
def _usable(device: str | torch.device) -> Iterator[None]:
    """AUNetError that names a device which torch cannot use, or whose memory is too small for what is put there.

    The device is tried alone: whatever else goes wrong is not its fault.
    """
    try:
        found = torch.empty(1, device=device).device
    except (RuntimeError, AssertionError, ImportError) as error:
        raise AUNetError(f"device: {device!s} cannot be used here ({' '.join(str(error).split())[:120]})") from None
    if found.type == "meta":
        raise AUNetError("device: meta keeps no weights; name one that does, such as cpu")
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise AUNetError(f"device: {device!s} has too little free memory for the weights") from None


def _integers(name: str, values: Any) -> Tensor:
    """A list, array or tensor of integers as int64; AUNetError that names the argument for anything else."""
    try:
        tensor = torch.as_tensor(np.asarray(values) if isinstance(values, list | tuple) else values)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:120]
        raise AUNetError(f"{name}: expected a rectangle of integers [B, S] ({reason})") from None
    if (tensor.is_floating_point() or tensor.is_complex()) and tensor.numel():
        raise AUNetError(f"{name}: expected integers of shape [B, S], not {tensor.dtype} of {list(tensor.shape)}")
    return tensor.long()
