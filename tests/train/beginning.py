"""What each of several ranks says of a run that may not begin: `python -m tests.train.beginning OUT`."""

import sys
from pathlib import Path

import torch

from aunet.errors import AUNetError
from aunet.train.distributed import find_ranks, joined
from aunet.train.resumption import find_checkpoint
from aunet.train.storage import Directory


def main() -> None:
    ranks, out = find_ranks(), Path(sys.argv[1])
    with joined(ranks, torch.device("cpu")):
        try:
            find_checkpoint(Directory(str(out / "checkpoints")), out, print, ranks)
        except AUNetError as error:
            print(error)


if __name__ == "__main__":
    main()
