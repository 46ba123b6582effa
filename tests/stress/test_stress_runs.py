"""The stress tests' short version: what is done to runs. It forks, so each part has a process of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import ROOT, read_json, run_python


@pytest.mark.parametrize("part", ["kills", "damage", "full_disk"])
def test_a_run_survives(part: str, tmp_path: Path):
    output = tmp_path / "figures.json"
    process = run_python(["-m", "stress", part, "--quick", "--output", output], ROOT / "tests")
    assert process.returncode == 0, process.stdout + process.stderr
    figures = read_json(output)
    assert figures and all(figure["met"] for figure in figures)
