"""What `torch.compile` needs, asked for before it is needed."""

import shutil

import torch

from aunet.errors import ConfigError

CPP_COMPILERS = ("g++", "clang++", "c++")


def require_compiler(device: torch.device, option: str) -> None:
    """ConfigError that names `option` where the CPU has no C++ compiler; allows as many graphs as we need."""
    if device.type == "cpu" and not any(shutil.which(name) for name in CPP_COMPILERS):
        raise ConfigError(f"{option}: torch.compile needs a C++ compiler on the CPU; install g++ or leave {option} out")
    # One graph per distinct block shape and mode (training, validation, one or several sequences) is expected.
    torch._dynamo.config.cache_size_limit = max(torch._dynamo.config.cache_size_limit, 64)
