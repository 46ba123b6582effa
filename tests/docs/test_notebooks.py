"""The notebooks run, with tiny settings, and are committed without outputs."""

from __future__ import annotations

import ast
import json
import subprocess
from pathlib import Path

import pytest
from pages import LINK, ROOT, link_faults
from warm_processes import run_warm

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
TINY = {  # in place of the values of the cell with the tag "parameters"
    "five_models": {"train_pairs": 16, "val_pairs": 4, "epochs": 1},
    "own_net": {"train_pairs": 16, "val_pairs": 4, "epochs": 1},
    "burst": {"rows": 128, "columns": 128, "length": "trainer.max_epochs=1 data.train_pairs=16"},
}


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def run_n2n(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
    """Stand in for ``subprocess.run``, without the seconds that imports take."""
    assert command[0] == "n2n"
    ended = run_warm(["-m", "n2n_lightning", *command[1:]], Path.cwd())
    return subprocess.CompletedProcess(command, ended.returncode, ended.stdout + ended.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", run_n2n)
    names: dict[str, object] = {"__name__": "__main__"}
    first, *rest = cells(path, "code")
    parameters = {ast.unparse(name) for name in ast.walk(ast.parse(first)) if isinstance(name, ast.Name)}
    assert parameters == set(TINY[path.stem])
    names |= TINY[path.stem]
    for number, cell in enumerate(rest, 2):
        exec(compile(cell, f"{path.name}, cell {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert " dB" in printed, "each notebook ends with what it reached"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_no_outputs_and_right_links(path: Path):
    loaded = json.loads(path.read_text())["cells"]
    assert next(cell["metadata"].get("tags") for cell in loaded if cell["cell_type"] == "code") == ["parameters"]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in loaded)
    text = "\n\n".join(cells(path, "markdown"))
    assert text.startswith("# ")
    targets = LINK.findall(text)
    assert targets and not [fault for target in targets for fault in link_faults(path, target)]
