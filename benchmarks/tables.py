"""Tables of results on the console."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

MIN_WIDTH = 180  # characters of a row, even if the terminal is narrower


def show(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = True) -> None:
    """Print a Markdown table.

    Args:
        titles: titles of the columns.
        rows: cells of each row.
        right: align all columns but the first on the right, as figures are.
    """
    table = Table(box=box.MARKDOWN)
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if right and number else "left")
    for cells in rows:
        table.add_row(*cells)
    Console(width=max(Console().width, MIN_WIDTH), markup=False).print(table)
