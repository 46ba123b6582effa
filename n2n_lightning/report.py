"""``python -m n2n_lightning.report DIR``: a page, tables and figures of every run found under DIR."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from n2n_lightning.reporting.comparison import Comparison, compare_runs
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.reporting.table import as_csv, console_table, markdown

PICTURE_NAMES = [f"{name}.png" for name in ("psnr", "psnr_pairs", "train_loss", "val_loss", "architecture_unet")]
PICTURE_NAMES += [f"{kind}_images.png" for kind in ("unet", "sequential", "best")]


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0 done, 1 the report could not be written, 2 there is nothing to report on."""
    parser = argparse.ArgumentParser(
        prog="python -m n2n_lightning.report",
        description="Table and figures of every run found under a folder, as one page, Markdown, CSV and PNG.",
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder of runs: outputs/<study>, or all of outputs")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the report goes (default: DIR/report)")
    arguments = parser.parse_args(argv)
    folder: Path = arguments.folder
    if not folder.is_dir():
        return _fail(2, f"{folder} is no folder; name one that holds runs, such as outputs/demo")
    found = read_runs(folder)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found.runs:
        return _fail(2, f"{folder} holds no runs, that is no readable result.json; train first, or name another folder")
    comparison, output = compare_runs(found.runs), arguments.output or folder / "report"
    try:
        paths = write_report(comparison, output, name=folder.resolve().name, warnings=found.warnings)
    except OSError as error:
        return _fail(1, f"the report could not be written: {error}")
    Console(width=None if sys.stdout.isatty() else 150).print(console_table(comparison))
    print("\n".join(str(path) for path in paths))
    return 0


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def write_report(comparison: Comparison, output: Path, *, name: str, warnings: Sequence[str] = ()) -> list[Path]:
    """Write index.html, table.md, table.csv and the figures; the paths, the page first."""
    from n2n_lightning.reporting.architecture import draw_architecture  # these load matplotlib, which takes its time
    from n2n_lightning.reporting.curves import CHARTS, draw_curves
    from n2n_lightning.reporting.page import Pictures, render
    from n2n_lightning.reporting.pictures import draw_best

    output.mkdir(parents=True, exist_ok=True)
    drawn = [column for column in CHARTS if "loss" in column or column == comparison.metric]
    curves = [draw_curves(comparison, column) for column in drawn]
    pictures = Pictures([curve for curve in curves if curve], draw_best(comparison), draw_architecture(comparison))
    files = {
        "index.html": render(comparison, pictures, name=name, warnings=warnings).encode(),
        "table.md": markdown(comparison).encode(),
        "table.csv": as_csv(comparison).encode(),
        **{picture.name: picture.png for picture in [*pictures.curves, *pictures.images, *pictures.networks]},
    }
    for stale in set(PICTURE_NAMES) - set(files):  # of an earlier report of other runs
        (output / stale).unlink(missing_ok=True)
    for file, content in files.items():
        (output / file).write_bytes(content)
    return [output / file for file in files]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
