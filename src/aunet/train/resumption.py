"""Which checkpoint a run goes on from, and that a run which has one never begins anew without it.

`saved.json` in `train.out` says that a checkpoint was complete, and where. A run that was killed before its first one
has none, and starts again from its beginning.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from aunet.errors import AUNetError
from aunet.files import write_json
from aunet.train import checkpoint
from aunet.train.checkpoint import Checkpoint
from aunet.train.distributed import ALONE, Ranks
from aunet.train.storage import Storage

SAVED = "saved.json"
"""In the directory of a run: its newest complete checkpoint."""


def note_saved(out: Path, storage: Storage, step: int) -> None:
    """Write down that the checkpoint of a step is complete."""
    write_json(out / SAVED, {"step": step, "checkpoint": storage.name(step)})


def find_checkpoint(
    storage: Storage, out: Path, warn: Callable[[str], None], ranks: Ranks = ALONE
) -> Checkpoint | None:
    """The checkpoint that the run in `out` goes on from; None where it begins. `warn` is told of what is passed over.

    AUNetError, on all ranks, where there were checkpoints and none of them can be used.
    """
    passed: list[str] = []
    found = checkpoint.newest(storage, passed.append, ranks)

    def agreed() -> None:
        if not ranks.first:
            return
        if found is None:
            _may_begin(storage, out, passed)
        else:
            note_saved(out, storage, found.step)

    ranks.together(agreed)
    for line in passed:
        warn(line)
    return found


def forget_checkpoints(out: Path) -> None:
    """Delete the checkpoints in the directory of a run, and that it had any: it may begin anew."""
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    (out / SAVED).unlink(missing_ok=True)


def _may_begin(storage: Storage, out: Path, passed: list[str]) -> None:
    """AUNetError that names what is missing, where the run has begun already."""
    if checkpoint.complete_steps(storage):
        raise AUNetError(f"{passed[0]}, and there is no other; put one back that is whole, or name another train.out")
    if saved := _saved(out):
        raise AUNetError(
            f"{saved}: this run was saved there, and {storage} has no complete checkpoint; put it back (is its disk "
            "mounted?), or name another train.out"
        )


def _saved(out: Path) -> str:
    """The checkpoint that the run says it has; empty if none."""
    path = out / SAVED
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["checkpoint"])
    except FileNotFoundError:
        return ""
    except (ValueError, KeyError, TypeError) as error:
        raise AUNetError(f"{path}: cannot be read ({error}); name another train.out") from None
