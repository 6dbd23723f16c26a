"""From a command to the end of the process."""

import sys
from collections.abc import Callable
from typing import NoReturn

from aunet.errors import AUNetError, ConfigError


def run(command: Callable[[], object]) -> NoReturn:
    """Run to the end of the process: an AUNetError is one line on stderr, never a traceback."""
    try:
        command()
    except AUNetError as error:
        for line in str(error).splitlines():
            print(f"aunet: error: {line}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
