"""What is printed at the end of a sweep."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_runs import write_run

from n2n_lightning.reporting.sweep import Outcome, best_text, print_outcomes


def test_the_reason_of_a_dead_run_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folders = [
        write_run(tmp_path / "unet"),
        write_run(tmp_path / "nn_relu", "nn_relu", 6.0, status="dead", reason="its images are black"),
    ]
    texts = [best_text(folder) for folder in folders]
    print_outcomes(
        [Outcome(folder, *parts) for folder, parts in zip(folders, ((t[0], 0, t[1]) for t in texts), strict=True)]
    )
    printed = capsys.readouterr().out
    assert printed.count("its images are black") == 1 and "1 done, 1 dead" in printed
