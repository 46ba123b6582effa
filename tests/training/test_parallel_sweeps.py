"""``hydra/launcher=joblib``: the jobs of a sweep run in parallel processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_runs import read_json, run_python, states
from warm_processes import SECONDS

from n2n_lightning.system.run_names import short_text

TRAIN = ("-m", "n2n_lightning.train", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
N2N = ("-m", "n2n_lightning", "train", *TRAIN[2:])  # the console script, whose workers must find the command as well
SMALL = ("model=convtrans_relu", "data.train_pairs=32", "data.val_pairs=8", "data.batch_size=8")


@pytest.mark.slow
def test_parallel_jobs_share_one_data_set_and_are_all_listed(photographs: Path, tmp_path: Path):
    line = [*TRAIN, *SMALL, f"data.root={photographs}", "trainer.max_epochs=1", "optimizer.lr=0.1,1e+30", "seed=0,1"]
    ended = run_python(line, tmp_path)
    assert ended.returncode == 1 and "Traceback" not in ended.stdout + ended.stderr
    found = states(ended.stdout)
    assert list(found) == [
        f"convtrans_relu,data.batch_size=8,data.root={short_text(str(photographs))},data.train_pairs=32,data.val_pairs=8,"
        f"optimizer.lr={lr},seed={seed},trainer.max_epochs=1"
        for lr in ("0.1", "1e+30")
        for seed in (0, 1)
    ]
    assert sorted(found.values()) == ["done", "done", "failed", "failed"]
    results = map(read_json, tmp_path.glob("outputs/runs/*/result.json"))
    assert all(result["own_optimizer"] is (result["optimizer"]["lr"] == 0.1) for result in results)
    assert "4 jobs of the sweep: 2 done, 2 failed" in ended.stdout
    assert ended.stderr.count("building 32 pairs") == ended.stderr.count("building 8 val") == 1
    lines = [text for text in ended.stdout.splitlines() if "epoch 1/1" in text]
    assert len(lines) == 2 and all(text.startswith("convtrans_relu,") for text in lines)

    again = run_python([*N2N, *line[len(TRAIN) :]], tmp_path)
    assert sorted(states(again.stdout).values()) == ["failed", "failed", "skipped", "skipped"]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for the workers where Linux lists them")
def test_a_signal_ends_a_parallel_sweep_with_its_workers(photographs: Path, tmp_path: Path):
    line = [sys.executable, *N2N, *SMALL, f"data.root={photographs}", "trainer.max_epochs=10000", "seed=0,1"]
    environment = os.environ | {"A_MARK_OF_THIS_TEST": str(tmp_path)}
    with subprocess.Popen(line, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if "epoch 2/10000" in text:
                break
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == 143
    ends = time.monotonic() + SECONDS
    while marked(str(tmp_path)):
        assert time.monotonic() < ends
        time.sleep(0.1)
    cut = [read_json(path) for path in tmp_path.glob("outputs/runs/*/result.json")]
    assert cut and all(result["status"] == "interrupted" for result in cut)


def marked(text: str) -> list[Path]:
    """Return the processes whose environment contains the text."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [path] if text.encode() in path.read_bytes() else []
        except OSError:  # it has just ended, or is another user's
            continue
    return found
