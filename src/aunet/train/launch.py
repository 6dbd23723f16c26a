"""Processes on this machine from one command: what `torchrun --standalone` starts, with a telling exit code.

Torch's elastic agent starts the processes, tells all to stop where one of them is told, and starts them again where one
has died; every one of them is `aunet train` in the environment that `torchrun` gives it.
"""

import logging
import os
import sys
import uuid
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch


def launch(arguments: Sequence[str], processes: int, restarts: int) -> int:
    """Run `python -m aunet ARGUMENTS` in so many processes; at most so many `restarts` of all of them.

    The exit code: 0 complete, 143 or 130 stopped by a signal, else that of the process that failed first.
    """
    # As much as there is, shared out; more threads than cores would wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)  # not a line for every process that is told
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=restarts,
        signals_to_handle="SIGTERM,SIGINT",
    )
    try:
        elastic_launch(config, sys.executable)("-m", "aunet", *arguments)
    except SignalException as stopped:
        return 128 + stopped.sigval
    except ChildFailedError as failed:
        code = failed.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    return 0
