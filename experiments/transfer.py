"""Transfer: bits per byte of trained models on languages that they have not read, by language, family and script.

    python experiments/transfer.py NAME=MODEL... --languages scripture/*.valid.jsonl.zst --declarations udhr.jsonl.zst
        [--read LANGUAGE...] [--figure FILE.svg]

A file of `--languages` is one language, named by what stands before the first dot. The documents of `--declarations`
carry `name` and `script`; those in a language that `--read` names were read in training and count with no others. Each
model leaves one record, `experiments/records/transfer/NAME.json`, with the bits and the
bytes of every document; the table compares each model with the last one, by the ratio of sums and its paired bootstrap
interval over documents, or over languages where a row has several, and the figure the first with the last.
"""

import argparse
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import zstandard
from rich.console import Console
from rich.table import Table

import aunet
from aunet.data.sources import files_documents
from aunet.errors import AUNetError
from aunet.evals.bpb import score_documents
from aunet.files import write_json
from aunet.report.figures import MUTED, look, styled, svg, write
from aunet.scaling.intervals import Interval, ratio

RECORDS = Path(__file__).parent / "records" / "transfer"
FAMILIES = {
    "Algonquian": ("ojibwa", "potawatomi"),
    "Afro-Asiatic, other": ("coptic", "syriac", "wolaytta"),
    "Atlantic-Congo": ("ewe", "lukpa", "swahili", "wolof", "zulu"),
    "Austronesian": ("chamorro", "uma"),
    "Baltic and Slavic": ("latvian", "ukranian"),
    "Berber": ("kabyle", "tachelhit", "tuareg"),
    "Celtic": ("gaelic", "manx"),
    "Creole of English": ("aukan",),
    "Indo-European, other": ("armenian", "gujarati", "romani"),
    "Iroquoian": ("cherokee",),
    "Jivaroan": ("achuar", "aguaruna", "shuar"),
    "Mayan": ("cakchiquel", "jakalteko", "kiche", "kiche-sil", "mam", "uspanteco"),
    "Nilotic": ("dinka",),
    "Oto-Manguean": ("amuzgo", "chinantec"),
    "Quechuan": ("quichua",),
    "South America, other": ("akawaio", "ashaninka", "barasana", "cabecar", "camsa"),
    "Uralic": ("estonian",),
    "Uto-Aztecan": ("nahuatl",),
    "West Papuan": ("galela",),
}
"""Languages of `--languages` by family; one that is not named stands for itself."""
SCRIPTS = {
    "armenian": "Armn",
    "cherokee": "Cher",
    "coptic": "Copt",
    "gujarati": "Gujr",
    "ojibwa": "Cans",
    "syriac": "Syrc",
    "ukranian": "Cyrl",
}
"""Of languages that are not written in Latin letters."""
UDHR = "udhr, "
READ = f"{UDHR}read in training"


class Found(NamedTuple):
    """What a model makes of one document."""

    group: str
    """The language, or udhr and the script."""
    bits: float
    bytes: int


def main() -> None:
    """Score every model, or take its record, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--languages", nargs="+", required=True)
    parser.add_argument("--declarations", required=True)
    parser.add_argument("--read", nargs="+", default=[], help="languages of declarations that were read in training")
    parser.add_argument("--figure", type=Path, help="where to draw the first model over the last, by language")
    arguments = parser.parse_args()
    named = [one.partition("=")[::2] for one in arguments.models]
    if arguments.figure and (len(named) < 2 or arguments.figure.suffix != ".svg"):
        parser.error("--figure: takes a FILE.svg, and two models or more to compare")
    if len({name for name, _ in named}) < len(named):
        parser.error("two models have one name; name each of them otherwise")
    documents = list(texts(arguments.languages, arguments.declarations, arguments.read))
    found = {name: scored(name, Path(model), documents) for name, model in named}
    Console().print(table(found))
    if arguments.figure:
        write({arguments.figure.stem: figure(found)}, arguments.figure.parent)


def scored(name: str, model: Path, documents: list[tuple[str, bytes]]) -> list[Found]:
    """The record of a model, made if it is missing; AUNetError where it is of another model or of other documents."""
    path, weights = RECORDS / f"{name}.json", _weights(model)
    if not path.exists():
        scores = score_documents(aunet.load(model).session(), [data for _, data in documents])
        rows = [[group, round(one.bits, 3), one.bytes] for (group, _), one in zip(documents, scores, strict=True)]
        RECORDS.mkdir(parents=True, exist_ok=True)
        write_json(path, {"name": name, "date": date.today().isoformat(), "weights": weights, "documents": rows})
    try:
        record: dict[str, Any] = json.loads(path.read_text())
        found = [Found(*row) for row in record["documents"]]
    except (ValueError, KeyError, TypeError):
        raise AUNetError(f"{path}: no record of this script; remove it") from None
    if weights and weights != record.get("weights", weights):  # records made before 2026-11-28 do not say
        raise AUNetError(f"{path}: is of another model than {model}; remove it or name the model otherwise")
    if [(one.group, one.bytes) for one in found] != [(group, len(data)) for group, data in documents]:
        raise AUNetError(f"{path}: is of other documents, or of another --read; remove it or name the model otherwise")
    return found


def _weights(model: Path) -> str | None:
    """SHA-256 of the weights of a model, which tells it from others; None if it is gone, and its record is all."""
    path = model / "model.safetensors"
    if not path.exists():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def texts(languages: Iterable[str], declarations: str, read: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Groups and documents."""
    met = set()
    for file in sorted(languages):
        for _, data in files_documents([file], "text"):
            yield Path(file).name.partition(".")[0], data
    try:
        with zstandard.open(declarations, "rt", encoding="utf-8") as lines:
            for line in lines:
                declaration = json.loads(line)
                # The languages of several translations: "German, Standard (1901)", "Portuguese (Brazil)".
                language = re.split(r", | \(", declaration["name"])[0]
                met.add(language)
                script = f"{UDHR}{declaration['script'] or 'script not named'}"
                yield READ if language in read else script, declaration["text"].encode()
    except OSError as error:
        raise AUNetError(f"--declarations: {declarations}: {error.strerror}") from None
    except (zstandard.ZstdError, ValueError, KeyError, TypeError):
        raise AUNetError(f"--declarations: {declarations}: not JSON lines of name, script, text under zstd") from None
    if unknown := set(read) - met:
        raise AUNetError(f"--read: {declarations} has no declaration in {', '.join(sorted(unknown))}")


def groups_of(name: str) -> tuple[str, ...]:
    """Where a document of a language, or of a script of the declarations, is counted; the order of the table's rows."""
    if name == READ:
        return (name,)
    if name.startswith(UDHR):
        return (name, f"{UDHR}all")
    families = (family for family, languages in FAMILIES.items() if name in languages)
    return (name, f"family: {next(families, name)}", f"script: {SCRIPTS.get(name, 'Latn')}", "all languages")


def table(found: dict[str, list[Found]]) -> Table:
    """One row per group: languages, their families, their scripts, scripts of the declarations."""
    *others, base = found
    view = Table(box=None, pad_edge=False)
    view.add_column("text")
    for column in ("documents", "bytes", *found, *(f"{name} / {base}" for name in others)):
        view.add_column(column, justify="right")
    for group, chosen in grouped(found[base]).items():
        scores = {name: drawn_of(rows, chosen) for name, rows in found.items()}
        size = sum(size for _, size in scores[base])
        ratios = [ratio(scores[name], scores[base]) for name in others]
        view.add_row(
            group,
            str(len(chosen)),
            f"{size:,}",
            *(f"{sum(bits for bits, _ in rows) / size:.3f}" for rows in scores.values()),
            *(f"{one.value:.3f} ({one.low:.3f}-{one.high:.3f})" for one in ratios),
        )
    return view


def grouped(rows: list[Found]) -> dict[str, list[int]]:
    """The places of the documents of each group: languages, their families, their scripts, scripts of declarations."""
    groups: dict[str, list[int]] = defaultdict(list)
    order: dict[str, tuple[int, str]] = {}
    for i, one in enumerate(rows):
        for kind, group in enumerate(groups_of(one.group)):
            groups[group].append(i)
            order[group] = (kind + 4 * one.group.startswith(UDHR), group)
    return {group: groups[group] for group in sorted(groups, key=order.__getitem__)}


def drawn_of(rows: list[Found], chosen: list[int]) -> list[tuple[float, int]]:
    """Bits and bytes of what is drawn for an interval: of each language where there are several, else of each document.

    Chapters of one language are hard or easy together, so drawing them would say little of languages. A declaration is
    a language of its own.
    """
    languages: dict[str, list[int]] = defaultdict(list)
    for i in chosen:
        languages[rows[i].group].append(i)
    if len(languages) == 1 or any(name.startswith(UDHR) for name in languages):
        return chosen_of(rows, chosen)
    return [(sum(rows[i].bits for i in own), sum(rows[i].bytes for i in own)) for own in languages.values()]


def chosen_of(rows: list[Found], chosen: list[int]) -> list[tuple[float, int]]:
    """Bits and bytes of some documents."""
    return [(rows[i].bits, rows[i].bytes) for i in chosen]


def figure(found: dict[str, list[Found]]) -> str:
    """The first model over the last, by language and by script of the declarations, the lowest on top, as SVG."""
    (name, rows), *_, (base, base_rows) = found.items()
    ratios = {
        group: ratio(chosen_of(rows, chosen), chosen_of(base_rows, chosen))
        for group, chosen in grouped(base_rows).items()
        if group == base_rows[chosen[0]].group and group != READ
    }
    languages = {group: one for group, one in ratios.items() if not group.startswith(UDHR)}
    scripts = {group.removeprefix(UDHR): one for group, one in ratios.items() if group.startswith(UDHR)}
    with styled() as Figure:
        drawing = Figure(figsize=(7.4, 1.0 + 0.16 * max(len(languages), len(scripts))), layout="constrained")
        axes = drawing.subplots(1, 2, sharex=True)
        _ratios(axes[0], languages, "scripture, by language", {one for one in languages if one in SCRIPTS})
        _ratios(axes[1], scripts, "declarations, by script", set(scripts) - {"Latn"})
        drawing.supxlabel(f"bits per byte of {name} over {base}; squares: not in Latin letters", fontsize="medium")
        return svg(drawing, "transfer", f"Bits per byte of {name} over those of {base}, by language and by script.")


def _ratios(axes: Any, ratios: dict[str, Interval], title: str, other_letters: set[str]) -> None:
    ordered = sorted(ratios, key=lambda group: -ratios[group].value)
    axes.axvline(1.0, color=MUTED.light, linewidth=1.0)
    for y, group in enumerate(ordered):
        one, drawn = ratios[group], look(int(group in other_letters))
        axes.plot([one.low, one.high], [y, y], color=drawn.colour, linewidth=1.4)
        axes.plot(one.value, y, drawn.marker, color=drawn.colour, markersize=4.5)
    axes.set(title=title, ylim=(-0.8, len(ordered) - 0.2))
    axes.set_yticks(range(len(ordered)), ordered, fontsize="small")
    axes.grid(visible=False, axis="y")


if __name__ == "__main__":
    try:
        main()
    except AUNetError as error:
        raise SystemExit(f"transfer.py: {error}") from None
