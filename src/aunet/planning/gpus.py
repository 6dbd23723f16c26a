"""GPUs by name: what their makers' data sheets state, and the memory that drivers report, which these round.

Rates are those of dense bf16 products (data sheets often state twice that, for sparse ones). Links: bytes per second
that a GPU sends while it receives as much, half of what is advertised as bidirectional. `network` is that of the
maker's own machine with eight of them, divided among them, or of one PCIe card's share of a 200 Gb/s adapter elsewhere.
"""

import difflib
import os
from dataclasses import dataclass

from aunet.errors import ConfigError

CPU = "cpu"


@dataclass(frozen=True)
class Gpu:
    """One accelerator."""

    name: str
    flops: float
    """Per second, dense, in bf16."""
    memory: float
    """Bytes."""
    link: float
    """Bytes per second to the others of its machine."""
    network: float
    """Bytes per second to other machines."""
    source: str


def _gpu(name: str, teraflops: float, gibibytes: float, link: float, network: float, source: str) -> Gpu:
    return Gpu(name, teraflops * 1e12, gibibytes * 2**30, link * 1e9, network * 1e9, source)


GPUS = {
    gpu.name: gpu
    for gpu in (
        _gpu("A100-40", 312, 40, 300, 25, "NVIDIA A100 and DGX A100 data sheets"),
        _gpu("A100", 312, 80, 300, 25, "NVIDIA A100 and DGX A100 data sheets"),
        _gpu("H100", 989, 79.6, 450, 50, "NVIDIA H100 (SXM) and DGX H100 data sheets"),
        _gpu("H200", 989, 140.4, 450, 50, "NVIDIA H200 (SXM) and DGX H200 data sheets"),
        _gpu("B200", 2250, 179, 900, 50, "NVIDIA DGX B200 data sheet"),
        _gpu("L4", 121, 22.5, 32, 3, "NVIDIA L4 data sheet"),
        _gpu("L40S", 362, 45, 32, 3, "NVIDIA L40S data sheet"),
        _gpu("RTX4090", 165, 24, 32, 3, "NVIDIA Ada GPU architecture whitepaper"),
    )
}


def gpu(name: str) -> Gpu:
    """A GPU by its name, or this machine's CPU; ConfigError that names the known ones."""
    if name.lower() == CPU:
        return _this_cpu()
    known = {known.lower(): known for known in GPUS}
    if name.lower() not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
        mend = f"did you mean {known[near[0]]}? " if near else ""
        raise ConfigError(f"--gpu: {name!r} is not known; {mend}known: {', '.join([*GPUS, CPU])}")
    return GPUS[known[name.lower()]]


def _this_cpu() -> Gpu:
    """Its memory; its rate is measured by whoever wants it. Processes of one machine exchange through its memory."""
    return Gpu(CPU, 0.0, float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), 1e9, 1e9, "this machine")
