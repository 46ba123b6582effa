"""Report on runs, as a page, tables and figures: ``python -m n2n_lightning.report DIR``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from n2n_lightning.reporting.comparison import Comparison, compare_runs
from n2n_lightning.reporting.runs import read_runs
from n2n_lightning.reporting.search import Search, read_search
from n2n_lightning.reporting.table import comparison_csv, comparison_markdown, print_comparison
from n2n_lightning.system import errors
from n2n_lightning.system.arguments import make_parser
from n2n_lightning.system.folders import suggest_path

FIGURE_FILES = [f"{name}.png" for name in ("psnr", "psnr_pairs", "train_loss", "val_loss", "architecture_unet")]
FIGURE_FILES += [f"{name}_images.png" for name in ("unet", "sequential", "best")] + ["search.png"]


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 the report could not be written, 2 there are no runs to report on."""

    def run() -> int:
        arguments = parse(argv)
        return report_runs(arguments.folder, arguments.output or arguments.folder / "report")

    return errors.run_command(run)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser(
        "report", "Table and figures of every run found under a folder, as one page, Markdown, CSV and PNG."
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a folder of runs: outputs/<study>, or all of outputs")
    parser.add_argument("--output", metavar="DIR", type=Path, help="where the report goes (default: DIR/report)")
    return parser.parse_args(argv)


def report_runs(folder: Path, output: Path) -> int:
    """Write the report and print its table.

    Raises:
        errors.InputError: the folder has no runs.
    """
    if not folder.is_dir():
        near = suggest_path(folder)
        raise errors.InputError(
            f"DIR must be a folder, got {folder}{near}; give a folder of runs, such as outputs/demo"
        )
    found = read_runs(folder)
    for warning in found.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not found.runs:
        raise errors.InputError(f"{folder} has no runs, that is no readable result.json; train first, or give another")
    comparison = compare_runs(found.runs)
    try:
        paths = write_report(comparison, output, folder.resolve().name, found.warnings, read_search(folder))
    except OSError as error:
        print_comparison(comparison)
        errors.report_error(error, f"the report could not be written to {output} ({error}); give another --output")
        return errors.FAILED
    print_comparison(comparison)
    print("\n".join(str(path) for path in paths))
    return errors.DONE


def write_report(
    comparison: Comparison, output: Path, name: str, warnings: Sequence[str], search: Search | None = None
) -> list[Path]:
    """Write index.html, table.md, table.csv and the figures; return their paths, the page first."""
    from n2n_lightning.reporting.architecture import draw_architecture  # these load matplotlib, which takes its time
    from n2n_lightning.reporting.curves import CHARTS, draw_curves
    from n2n_lightning.reporting.page import PageFigures, render_page
    from n2n_lightning.reporting.pictures import draw_best
    from n2n_lightning.reporting.search_figure import draw_search

    output.mkdir(parents=True, exist_ok=True)
    columns = [column for column in CHARTS if "loss" in column or column == comparison.metric]
    curves = [figure for column in columns if (figure := draw_curves(comparison, column))]
    figures = PageFigures(
        curves, draw_best(comparison), draw_architecture(comparison), draw_search(search) if search else []
    )
    files = {
        "index.html": render_page(comparison, figures, name=name, warnings=warnings, search=search).encode(),
        "table.md": comparison_markdown(comparison).encode(),
        "table.csv": comparison_csv(comparison).encode(),
        **{figure.name: figure.png for section in figures for figure in section},
    }
    for stale in set(FIGURE_FILES) - set(files):  # of an earlier report on other runs
        (output / stale).unlink(missing_ok=True)
    for file, content in files.items():
        (output / file).write_bytes(content)
    return [output / file for file in files]


if __name__ == "__main__":
    sys.exit(main())
