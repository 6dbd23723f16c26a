"""What the intervals and the budget of the race leave out: other novels, and what an optimizer computes.

    python experiments/caveats.py RECORD... --novels 5 56 73 23 32

The documents of one novel are hard or easy together. So for each record against the last one: the ratio of bits with
its paired 95% interval over documents, the same over novels, which is what drawing other novels would change, and the
ratio on each novel. `--novels` gives their documents, in the order of the validation text. And for each record what its
optimizer's matrix products are of the FLOPs that count, which leave them out: Muon's, for AdamW has none. They are
counted by torch in one step of the record's own model. Prints Markdown.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from aunet.config import AUNetConfig, TrainConfig
from aunet.errors import AUNetError
from aunet.mappings import validate
from aunet.model.aunet import AUNet
from aunet.report.tables import Table, interval, markdown
from aunet.scaling.intervals import ratio
from aunet.scaling.records import DocumentScore, Record, read_record
from aunet.train.optim import build_optimizers


def main() -> None:
    """Read the records and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", nargs="+", type=Path)
    parser.add_argument("--novels", nargs="+", type=int, required=True, help="documents of each")
    arguments = parser.parse_args()
    records = [read_record(path) for path in arguments.records]
    Console().print(markdown(table(records, arguments.novels)), highlight=False, soft_wrap=True, markup=False)


def table(records: Sequence[Record], novels: Sequence[int]) -> Table:
    """A row for each record; AUNetError where novels and documents do not match."""
    *_, base = records
    theirs = documents_of(base)
    header = ("record", "ratio, over documents", "over novels", "on each novel", "optimizer's products, of the FLOPs")
    rows = []
    for record in records:
        ours = documents_of(record)
        apart = [ratio(a, b).value for a, b in zip(by_novel(ours, novels), by_novel(theirs, novels), strict=True)]
        drawn = ratio(*([summed(novel) for novel in by_novel(one, novels)] for one in (ours, theirs)))
        products = products_of_a_step(record) * record.steps / record.compute_flops
        row = (record.name, interval(ratio(ours, theirs), 3), interval(drawn, 3))
        rows.append((*row, " ".join(f"{value:.3f}" for value in apart), f"{products:.1%}"))
    note = f"Ratios are to {base.name}; in brackets 95% intervals, paired."
    return Table("What is left out", note, header, tuple(rows), names=1)


def documents_of(record: Record) -> Sequence[DocumentScore]:
    """Of the first validation text."""
    if not record.documents:
        raise AUNetError(f"{record.name}: is {record.status} and has no scores")
    return next(iter(record.documents.values()))


def by_novel(documents: Sequence[DocumentScore], novels: Sequence[int]) -> list[Sequence[DocumentScore]]:
    """The documents of each."""
    if sum(novels) != len(documents) or min(novels) < 1:
        given = " + ".join(map(str, novels))
        raise AUNetError(f"--novels: {given} is not {len(documents)}, the number of documents, one or more each")
    return [documents[start:stop] for start, stop in pairwise(accumulate(novels, initial=0))]


def summed(documents: Sequence[DocumentScore]) -> DocumentScore:
    """Bits and bytes of all."""
    return sum(bits for bits, _ in documents), sum(size for _, size in documents)


def products_of_a_step(record: Record) -> int:
    """FLOPs of the matrix products of one step of a record's optimizers."""
    model = AUNet(validate(AUNetConfig, record.config["model"], record.name))
    made = build_optimizers(model, validate(TrainConfig, record.config["train"], record.name))
    optimizers = [one for one in made if isinstance(one, torch.optim.Muon)]
    for parameter in (p for one in optimizers for group in one.param_groups for p in group["params"]):
        parameter.grad = torch.ones_like(parameter)
    with FlopCounterMode(display=False) as counter:
        for one in optimizers:
            one.step()
    return int(counter.get_total_flops())


if __name__ == "__main__":
    try:
        main()
    except AUNetError as error:
        sys.exit(f"caveats.py: {error}")
