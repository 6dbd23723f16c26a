"""What commands print."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table


def show(table: Table) -> None:
    """Print it whole: on a narrow terminal, or on none, lines are long rather than cut."""
    console = Console()
    wide = console.options.update(max_width=10_000)
    console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)
