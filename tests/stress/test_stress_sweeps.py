"""The stress tests' parts about sweeps, in their quick form."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_runs import ROOT, run_python

QUICK = """
import sys
from pathlib import Path
from stress.{part} import run

figures = run(Path(sys.argv[1]), quick=True)
for figure in figures:
    print(figure)
sys.exit(not figures or not all(figure.met for figure in figures))
"""


@pytest.mark.parametrize("part", ["sweep", "endurance", "sameness"])
def test_every_bar_is_met(part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """In a process of its own, since some fork, which one that has computed with torch must not."""
    path = [str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    process = run_python(["-c", QUICK.format(part=part), tmp_path], tmp_path)
    assert process.returncode == 0, process.stdout + process.stderr
