"""From a command to the end of the process."""

import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import NoReturn

from aunet.errors import AUNetError, ConfigError, out_of_memory


def run(command: Callable[[], object]) -> NoReturn:
    """Run to the end of the process: an AUNetError, or one of the system or of memory, is one line, not a traceback.

    What stdout cannot encode, as where it is ASCII, is written as a question mark; stderr always has a way.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        command()
    except AUNetError as error:
        for line in str(error).splitlines():
            print(f"aunet: error: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:  # wherever it strikes: a disk that is full, a directory that is gone
        place = f"{error.filename}: " if error.filename else ""
        print(f"aunet: error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except (MemoryError, RuntimeError) as error:
        if not (short := out_of_memory(error)):
            raise
        print(f"aunet: error: {short}; take a smaller model, shorter texts or fewer at a time", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
