"""The one exception that users see: a single line that names the file, key or flag and the mend."""

OUT_OF_MEMORY = ("allocate memory", "out of memory", "not enough memory")
"""Words of torch's allocators: that of the CPU raises a RuntimeError like any other."""


class AUNetError(Exception):
    """Bad input or an environment that cannot do what was asked; the command line prints it without a traceback."""


class ConfigError(AUNetError):
    """A configuration that cannot be used; the message lists every problem found, one per line."""


class RunFailed(AUNetError):
    """A run that had begun cannot go on: its loss is not finite, or a process that it needs was killed."""


def out_of_memory(error: MemoryError | RuntimeError) -> str:
    """One line where an error says that memory is short, on any device; empty for any other error."""
    if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
        return ""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return f"out of memory ({' '.join(reason.split())[:200]})"


class MissingExtra(AUNetError):
    """A feature needs an optional dependency that is not installed."""

    def __init__(self, package: str, extra: str, feature: str) -> None:
        super().__init__(f"{feature} needs the package {package!r}: pip install 'aunet[{extra}]'")
