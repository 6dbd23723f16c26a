"""`aunet inspect`: a text under a model, in the terminal or as a page."""

from pathlib import Path

from rich.console import Console

from aunet.errors import AUNetError, ConfigError
from aunet.files import replacing
from aunet.language_model import LanguageModel, require_bytes
from aunet.report.html import passage_html
from aunet.report.passage import Passage
from aunet.report.terminal import render

MOST_BYTES = 50_000
"""More than anybody looks at: what is behind is left out, and what is before it does not depend on it."""


def read(model: LanguageModel, data: bytes) -> Passage:
    """A whole document as the model reads it: levels, bits of each byte and of the end."""
    bits = model.bits(data)
    return Passage(data, model.splitter.levels(data), bits[:-1], float(bits[-1]), model.config.depth + 1)


def show(model: LanguageModel, data: bytes, html: Path | None, console: Console) -> None:
    """Print units and bits, or write a page to `html`. AUNetError if that fails, or for models over tokens."""
    require_bytes(model.config, "inspect")
    if len(data) > MOST_BYTES:
        console.print(f"the first {MOST_BYTES:,} of {len(data):,} bytes:", highlight=False, soft_wrap=True)
        whole = read(model, data[:MOST_BYTES])
        passage = Passage(whole.data, whole.levels, whole.bits, None, whole.stages)  # it does not end there
    else:
        passage = read(model, data)
    rule = model.config.splitter
    if html is None:
        console.print(render(passage, rule))
        return
    if html.is_dir():
        raise ConfigError(f"--html: {html} is a directory; name a file in it")
    try:
        with replacing(html) as partial:
            partial.write_text(passage_html(passage, rule), encoding="utf-8")
    except OSError as error:
        raise AUNetError(f"--html: {html} cannot be written ({error.strerror})") from None
    console.print(f"written: {html}", highlight=False, markup=False, soft_wrap=True)
