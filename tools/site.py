"""Build the documentation's site in build/site/html. ``make docs`` calls it; it needs the extra ``docs``.

    python tools/site.py

Pages keep their places: README.md is the first page, docs/running.md becomes docs/running.html. So links between them
are right on a code host and on the site. The notebooks are executed, and become pages with their outputs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "build" / "site"
PAGES = SITE / "pages"
COPIED = (  # pages, and what they show or link to
    *("*.md", "LICENSE", "CITATION.cff", "outputs/README.md", "weights/**/*.md", "weights/**/result.json"),
    *("docs/**/*.md", "docs/**/*.png", "docs/**/*.json", "docs/**/*.py", "examples/**/*.md"),
)
REFERENCE = {  # headings of the reference, with the names whose docstrings they show
    "Denoise and train": ("Denoiser", "load_denoiser"),
    "Data for a training of one's own": ("ArrayData", "NoisyPairDataModule"),
    "Lightning modules": ("DenoiserModule", "models.families"),
    "Choices of one's own": ("plugins",),
    "Functions": ("losses", "metrics", "filters", "residuals"),
}
REFERENCE_HEAD = """# The Python reference

This page is made from docstrings. [Running](docs/running.md) describes the commands.

"""


def main() -> int:
    # The cells find the commands as in an activated environment.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shutil.rmtree(SITE, ignore_errors=True)
    for path in pages(ROOT):
        target = PAGES / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(path.read_text().replace(".ipynb)", ".md)"))
        else:
            shutil.copy(path, target)
    (PAGES / "reference.md").write_text(reference())
    for notebook in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        print(f"executing {notebook.relative_to(ROOT)}", flush=True)
        write_notebook(notebook, PAGES / "docs" / "notebooks")
    shutil.copy(ROOT / "docs" / "zensical.toml", SITE)
    zensical = Path(sys.executable).with_name("zensical")
    built = subprocess.run([zensical, "build", "--strict", "--config-file", SITE / "zensical.toml"], check=False)
    if built.returncode == 0:
        print(f"The site: {SITE.relative_to(ROOT)}/html; to read it: python -m http.server -d build/site/html")
    return built.returncode


def pages(root: Path) -> Iterator[Path]:
    """Yield the files that the site is made of."""
    for pattern in COPIED:
        yield from sorted(root.glob(pattern))


def reference() -> str:
    """Return the page that shows docstrings, as ``mkdocstrings`` reads it."""
    sections = (f"## {title}\n\n" + "\n".join(map(entry, names)) for title, names in REFERENCE.items())
    return REFERENCE_HEAD + "\n".join(sections)


def entry(name: str) -> str:
    return f"::: n2n_lightning.{name}\n    options:\n      heading_level: 3\n"


def write_notebook(path: Path, folder: Path) -> None:
    """Execute a notebook in an empty folder, and write it as a page with its pictures beside it.

    Raises:
        CellExecutionError: a cell failed.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import MarkdownExporter

    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": empty}}).execute()
    where = {"unique_key": path.stem, "output_files_dir": f"{path.stem}_files"}
    text, resources = MarkdownExporter().from_notebook_node(notebook, where)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in resources["outputs"].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / f"{path.stem}.md").write_text(text.replace(".ipynb)", ".md)"))


if __name__ == "__main__":
    sys.exit(main())
