"""Tables of results on the console."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from n2n_lightning.reporting.printing import TextTable


def show(titles: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = True) -> None:
    """Print a Markdown table; ``right`` aligns all columns but the first on the right, as figures are."""
    numeric = [right and number > 0 for number in range(len(titles))]
    print(TextTable(titles, list(rows), numeric).markdown(), flush=True)
