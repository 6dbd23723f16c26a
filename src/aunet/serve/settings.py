"""What a server allows."""

import math
from dataclasses import dataclass, field

from aunet.errors import ConfigError


@dataclass(frozen=True)
class Settings:
    """Limits of one server; ConfigError lists everything that cannot be used."""

    slots: int = 64
    """Sequences that are generated at the same time."""
    queue: int = 256
    """Sequences that may wait for a slot; what is beyond is answered with 429."""
    prompt_cache_mib: int = 256
    """Memory for the keys and values of prompts that were read, for requests that begin alike."""
    max_prompt_bytes: int = 65_536
    """Bytes of all prompts of a request."""
    max_new_bytes: int = 4_096
    """New bytes of each sequence."""
    max_scored_bytes: int = 16_384
    """Bytes of a request whose log-probabilities are given out, and of a text to inspect."""
    max_seconds: float = 120.0
    """From the arrival of a request to the end of its answer."""
    drain_seconds: float = 10.0
    """How long running answers may go on after the signal to stop."""
    api_key: str | None = field(default=None, repr=False)
    """What /v1 asks for as a bearer token; None: nothing."""

    def __post_init__(self) -> None:
        problems = []
        for name, least in (
            ("slots", 1),
            ("queue", 0),
            ("prompt_cache_mib", 0),
            ("max_prompt_bytes", 1),
            ("max_new_bytes", 1),
            ("max_scored_bytes", 1),
        ):
            value = getattr(self, name)
            if value < least:
                problems.append(f"--{name.replace('_', '-')}: {value} is below {least}")
        for name in ("max_seconds", "drain_seconds"):
            value = getattr(self, name)
            if not 0 < value < math.inf:
                problems.append(f"--{name.replace('_', '-')}: {value} is not a positive number of seconds")
        if self.api_key is not None and (not self.api_key.isascii() or not self.api_key.isprintable()):
            problems.append("--api-key: only printable ASCII characters fit into a header")
        elif self.api_key is not None and not self.api_key.strip():
            problems.append("--api-key: the key is empty; leave it out to ask for none")
        elif self.api_key is not None and self.api_key.strip() != self.api_key:
            problems.append("--api-key: the key begins or ends with a space, which clients leave out")
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def prompt_cache(self) -> int:
        """In bytes."""
        return self.prompt_cache_mib << 20

    @property
    def max_body_bytes(self) -> int:
        """Of a request: a prompt byte is at most six characters of JSON, and something for the other fields."""
        return 6 * max(self.max_prompt_bytes, self.max_scored_bytes) + 65_536
