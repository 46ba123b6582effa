"""The project's pages: links, commands, names and paths exist; text is short; a page begins with its purpose."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import CHANGELOG, PAGES, ROOT, command_faults, commands, faults, split_page

from n2n_lightning.system.hydra_app import load_plugins
from n2n_lightning.training import loggers


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.parametrize("path", [*PAGES, CHANGELOG], ids=name)
@pytest.mark.usefixtures("write_module")
def test_links_commands_names_and_paths_exist_and_lines_are_short(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "plugin")
    load_plugins(["n2n_example.denoisers"])  # pages name its net, loss and source
    monkeypatch.setattr(loggers, "is_installed", lambda package: True)  # of extras
    assert not list(faults(path, path.read_text()))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[data](docs/no_data.md)", "no file for the link docs/no_data.md"),
        ("![data](docs/no_data.png)", "no file for the link docs/no_data.png"),
        ("[loss](docs/sources/clean.md#no-loss)", "no heading for the link docs/sources/clean.md#no-loss"),
        ("[here](#nothing)", "no heading for the link #nothing"),
        ("    python -m n2n_lightning.train model=unett", "unett"),
        ("    python -m n2n_lightning.train model=nafnet model.widht=3", "widht"),
        ("    python -m n2n_lightning.train -m model=unet,nn_rely seed=0,1", "nn_rely"),
        ("    python -m n2n_lightning.train data=burst \\\n        data.rot=FOLDER", "rot"),
        ("    python -m n2n_lightning.train data=burst", "data.root is needed"),
        ("    python -m n2n_lightning.train optimizer.lr=fast", "optimizer.lr"),
        ("| a | `python -m n2n_lightning.train data=bursts data.root=A` |", "bursts"),
        ("    python -m n2n_lightning.evaluate data=photos", "checkpoint is needed"),
        ("    python -m n2n_lightning.evaluate checkpoint=RUN data=kodak data.root=A", "kodak"),
        ("call `python -m n2n_lightning.predict unet a.png`", "--output"),
        ("    python -m n2n_lightning.predict unet a.png --output DIR --memory much", "--memory"),
        ("    python -m n2n_lightning.export unet --format onxx", "onxx"),
        ("    python -m n2n_lightning.report", "DIR"),
        ("    python -m n2n_lightning.repeat RUN --studies NAME", "--studies"),
        ("    python -m n2n_lightning.reproduce --root A seed=1", "seed=1"),
        ("    python -m n2n_lightning.standin --output DIR --train-pairs many", "--train-pairs"),
        ("    python -m n2n_lightning.trian", "no module"),
        ("    n2n trian", "no module"),
        ("    n2n train model=unett", "unett"),
        ("    n2n completion ksh", "ksh"),
        ("    python -m benchmarks.speed", "no module"),
        ("    python tools/unlock.py", "no script"),
        ("    make torture", "no target: make torture"),
        ("or `make chekc`", "no target: make chekc"),
        ("use `experiment=paper/gaussian_small`", "no choice: experiment=paper/gaussian_small"),
        ("use `loss=l1,l3`", "no choice: loss=l3"),
        ("see `n2n_lightning/module.py`", "no such path: n2n_lightning/module.py"),
        ("```python\nfrom n2n_lightning import NoSuchName\n```", "no name: n2n_lightning.NoSuchName"),
        ("word " * 30, "a line has 150 characters"),
        (f"| a | {'word ' * 30}|", "a cell holds a paragraph"),
    ],
)
def test_each_kind_of_fault_is_found(text: str, said: str):
    found = list(faults(ROOT / "README.md", f"# Page\n\n{text}\n"))
    assert len(found) == 1 and said in found[0]


def test_placeholders_usage_lines_and_other_programs_are_no_faults():
    shown = """
    python -m n2n_lightning.predict CHECKPOINT INPUT... --output DIR   # a comment
    python -m n2n_lightning.evaluate checkpoint=PATH data=NAME
    python -m n2n_lightning.train data=clean data.root=FOLDER -m seed=0,1 hydra/launcher=joblib hydra.launcher.n_jobs=2
    python -m n2n_lightning.train --help
    make test ARGS="-k wheel"
    tensorboard --logdir outputs
"""
    assert len(commands(split_page(shown))) == 5
    assert not list(faults(ROOT / "README.md", shown))


PURPOSEFUL = [path for path in PAGES if path.is_relative_to(ROOT / "docs") and path.parent.name != "decisions"]


@pytest.mark.parametrize("path", PURPOSEFUL, ids=name)
def test_a_page_begins_with_what_it_is_for_and_a_command(path: Path):
    title, _, rest = path.read_text().partition("\n\n")
    assert title.startswith("# ") and re.match(r"This (page|is)", rest)
    beginning = "\n".join(rest.splitlines()[:12])
    assert re.search(r"python -m |```python|Save the code below", beginning)


def test_the_readme_is_short_and_draws_the_files_and_how_data_flows():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    tree = text.partition("## The files\n\n")[2].partition("\n\n")[0].splitlines()
    assert 0 < len(tree) <= 15
    for folder in re.findall(r"(?:^|  )([\w.]+/)", "\n".join(tree)):
        assert (ROOT / folder).is_dir() or (ROOT / "n2n_lightning" / folder).is_dir(), folder
    packages = {path.parent.name for path in (ROOT / "n2n_lightning").glob("*/__init__.py")}
    assert packages <= set(re.findall(r"\w+(?=/)", "\n".join(tree)))
    assert "-->" in text.partition("## How data flows")[2].partition("\n## ")[0]


def test_make_help_lists_every_target():
    text = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert set(phony.split()) == set(re.findall(r"^([a-z]+):.*## \w", text, re.MULTILINE))


def test_the_version_is_the_same_everywhere():
    from n2n_lightning import __version__

    for file, pattern in (
        ("pyproject.toml", r'^version = "(.*)"$'),
        ("CITATION.cff", r"^version: (.*)$"),
        ("CHANGELOG.md", r"^## \[(\d.*)\] - \d{4}-\d\d-\d\d$"),
    ):
        assert re.findall(pattern, (ROOT / file).read_text(), re.MULTILINE)[0] == __version__, file


def test_a_command_is_judged_by_all_its_words():
    assert not list(command_faults("python -m n2n_lightning.train model=nn_relu optimizer.lr=0.05"))
