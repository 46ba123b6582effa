"""Tables of texts: printed in the terminal, and written as Markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

EMPTY_CELL = "–"
UNLIMITED = 100_000  # characters of a line


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are texts. Nothing of a text is ever cut, so that paths in it can be copied.

    Args:
        titles: of the columns; empty for a table without a header.
        rows: the cells of each row.
        numeric: for each column, whether it is aligned to the right; empty for none.
        styles: rich's style of each row in a terminal; empty for none.
        fold: in a terminal, break cells over several lines so that the table is not wider than the terminal.
        unbroken: title of a column whose cells stay on one line nevertheless.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: Sequence[bool] = ()
    styles: Sequence[str] = ()
    fold: bool = False
    unbroken: str = ""

    def show(self) -> None:
        """Print the table."""
        width = None if self.fold and sys.stdout.isatty() else UNLIMITED
        Console(width=width).print(self._rich_table())

    def text(self, width: int = UNLIMITED) -> str:
        """Return the table as lines of at most ``width`` characters, without styles."""
        console = Console(width=width, color_system=None)
        with console.capture() as capture:
            console.print(self._rich_table())
        return "\n".join(line.rstrip() for line in capture.get().splitlines())

    def markdown(self) -> str:
        """Return the table in Markdown."""
        numeric = self.numeric or [False] * len(self.titles)
        rule = ["---:" if right else "---" for right in numeric]
        lines = [
            [" ".join(cell.replace("|", r"\|").split()) for cell in row] for row in (self.titles, rule, *self.rows)
        ]
        return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

    def _rich_table(self) -> Table:
        header = bool(self.titles)
        table = Table(box=SIMPLE_HEAD if header else None, show_header=header, header_style="bold", pad_edge=False)
        table.collapse_padding = header  # leaves two spaces between columns in either case
        titles = self.titles or [""] * max(map(len, self.rows), default=0)
        for title, right in zip(titles, self.numeric or [False] * len(titles), strict=True):
            no_wrap = header and title == self.unbroken
            table.add_column(Text(title), justify="right" if right else "left", overflow="fold", no_wrap=no_wrap)
        for cells, style in zip(self.rows, self.styles or [""] * len(self.rows), strict=True):
            table.add_row(*map(Text, cells), style=style)
        return table
