"""How far back a model looks: bits of the next byte by how many bytes before it the model is given.

    python experiments/context.py MODEL... --text valid.jsonl.zst [--places 300]

The places lie evenly in the text, each after the longest context of its document. What is given begins like a document,
which is rarely where these bytes stand in training, so a few bytes look worse than they would be in a text; but from
where more bytes change nothing, a model does not use them. Prints Markdown.
"""

import argparse
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from rich.console import Console

import aunet
from aunet.data.sources import files_documents
from aunet.errors import AUNetError
from aunet.evals.bpb import document_bits
from aunet.infer.session import Session
from aunet.language_model import require_bytes
from aunet.report.tables import Table, markdown

CONTEXTS = (1, 2, 3, 4, 6, 8, 12, 16, 32, 64, 128, 256)
"""Bytes that are given."""


def main() -> None:
    """Read the models and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="model directories")
    parser.add_argument("--text", required=True, help="held-out documents")
    parser.add_argument("--places", type=int, default=300, help="bytes that are predicted")
    arguments = parser.parse_args()
    pieces = evenly([data for _, data in files_documents([arguments.text])], arguments.places)
    header, rows = ("bytes given", *(path.name for path in arguments.models)), []
    for path in arguments.models:
        model = aunet.load(path)
        require_bytes(model.config, "context.py")
        session = model.session()
        rows.append([f"{bits_given(session, pieces, context):.3f}" for context in CONTEXTS])
    columns = zip(map(str, CONTEXTS), *rows, strict=True)
    table = Table("How far back it looks", "Bits of the next byte.", header, tuple(columns), names=1)
    Console().print(markdown(table), highlight=False, soft_wrap=True, markup=False)


def evenly(documents: Sequence[bytes], places: int) -> list[bytes]:
    """As many pieces that lie evenly in what follows the longest context in its document; each ends with its place.

    AUNetError where there are not so many.
    """
    longest = CONTEXTS[-1]
    ends = list(accumulate(max(0, len(document) - longest) for document in documents))
    if not ends or not 0 < places <= ends[-1]:
        raise AUNetError(f"--places: {places} is not from 1 to {ends[-1] if ends else 0}, which the text has")
    pieces, at = [], 0
    for place in range(places):
        offset = place * ends[-1] // places
        while offset >= ends[at]:
            at += 1
        end = len(documents[at]) - (ends[at] - offset) + 1
        pieces.append(documents[at][end - longest - 1 : end])
    return pieces


def bits_given(session: Session, pieces: Sequence[bytes], context: int) -> float:
    """Mean bits of the last byte of each piece after so many bytes before it."""
    return float(sum(document_bits(session, piece[-context - 1 :])[context] for piece in pieces) / len(pieces))


if __name__ == "__main__":
    try:
        main()
    except AUNetError as error:
        raise SystemExit(f"context.py: {error}") from None
