"""What is asked of the engine and what comes back."""

from dataclasses import dataclass, field

from aunet.bytes import VOCAB_SIZE
from aunet.errors import ConfigError
from aunet.infer.sampling import Sampling


@dataclass(frozen=True)
class Request:
    """Continue a prompt (an empty one too) until EOS, a stop string, or `max_bytes` new bytes."""

    prompt: bytes = b""
    max_bytes: int = 256
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[bytes, ...] = ()
    """Looked for in the new bytes only; not given out."""
    alternatives: int | None = None
    """Score each byte and the end, and so many of the likeliest ids in its place; None: no scores."""
    echo: bool = False
    """Give out the prompt first, with its scores if there are any."""

    def __post_init__(self) -> None:
        if self.max_bytes < 0 or self.max_bytes % 1:  # what is left of 2.5 would never be 0
            raise ConfigError(f"max_bytes: {self.max_bytes} is not a whole number from 0")
        if not all(self.stop):
            raise ConfigError("stop: an empty stop string would end every text at once; leave it out")
        if self.alternatives is not None and not 0 <= self.alternatives <= VOCAB_SIZE:
            raise ConfigError(f"alternatives: {self.alternatives} is not from 0 to {VOCAB_SIZE}")


@dataclass(frozen=True)
class ByteScore:
    """How likely a byte was where it stands, under the model itself (temperature 1)."""

    id: int
    logprob: float
    """Natural logarithm of its probability."""
    top: tuple[tuple[int, float], ...]
    """The likeliest ids in its place and their log-probabilities, likeliest first."""


@dataclass(frozen=True)
class Event:
    """Something new of one sequence."""

    index: int
    """Which request."""
    text: str
    """Valid text that is certain: no incomplete character, no beginning of a stop string. May be empty."""
    data: bytes
    """The raw bytes since the last event of this sequence."""
    finish: str | None = None
    """On the last event: `eos`, `stop` or `length`."""
    scores: tuple[ByteScore, ...] = ()
    """Of the bytes in `data`, and of EOS where it was drawn, if they were asked for."""
