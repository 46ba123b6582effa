"""Compare a search that prunes, and is killed twice, with one that does not: ``python -m benchmarks.search``.

Both are commands as a user types them, with the same seed, over rate, optimizer and width. Epochs are counted beside
seconds, because other work on the machine changes only the seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measuring import machine, save
from benchmarks.tables import show

SPACE = ("optimizer=adam,adamw,sgd", "optimizer.lr=tag(log,interval(1e-4,1e-1))", "model.width=choice(4,8,16)")
DATA = ["model=nafnet8", "data.train_pairs=256", "data.val_pairs=64", "data.batch_size=16"]
KILLS = 2


def search(folder: Path, words: list[str], trials: int, kills: int) -> dict[str, Any]:
    """Search to the end, and kill the process so many times on the way; return what it found and what it took."""
    line = [sys.executable, "-m", "n2n_lightning.train", "-m", "hydra/sweeper=optuna"]
    line += [f"hydra.sweeper.n_trials={trials}", *words]
    seconds, killed = 0.0, 0
    while True:
        started = time.perf_counter()
        with subprocess.Popen(line, cwd=folder, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                time.sleep(0.2)
                if killed < kills and len(ended(folder)) >= (killed + 1) * trials // (kills + 1):
                    time.sleep(0.7)  # into the next trial
                    process.kill()
                    killed += 1
        seconds += time.perf_counter() - started
        if process.returncode == 0:
            break
        if process.returncode > 0:
            raise RuntimeError(f"the search ended with exit code {process.returncode}")
    record = json.loads((folder / "outputs/runs/search.json").read_text())
    found = record["trials"]
    values = [trial["value"] for trial in found if trial["state"] == "complete"]
    return {
        "trials": len(found),
        "kills": killed,
        "pruned": sum(trial["state"] == "pruned" for trial in found),
        "epochs": sum(trial["epochs"] or 0 for trial in found),
        "seconds": seconds,
        "best_db": max(values),
        "importances": record["importances"],
    }


def ended(folder: Path) -> list[Any]:
    """Return the trials that have ended so far."""
    path = folder / "outputs/runs/search.json"
    trials = json.loads(path.read_text())["trials"] if path.exists() else []
    return [trial for trial in trials if trial["state"] != "interrupted"]


def measure(trials: int, epochs: int, pruner: str, overrides: list[str]) -> dict[str, Any]:
    cache = f"data.cache_dir={Path('outputs/cache').absolute()}"
    words = [*SPACE, f"trainer.max_epochs={epochs}", cache, *overrides]
    found = {}
    for name, chosen, kills in (("unpruned", "null", 0), ("pruned", pruner, KILLS)):
        with tempfile.TemporaryDirectory() as folder:  # the data set is in the cache from the first on
            found[name] = search(Path(folder), [*words, f"hydra.sweeper.pruner={chosen}"], trials, kills)
    part = {key: found["pruned"][key] / found["unpruned"][key] for key in ("epochs", "seconds")}
    return {**found, "part": part, "behind_db": found["unpruned"]["best_db"] - found["pruned"]["best_db"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--pruner", default="halving")
    parser.add_argument("overrides", nargs="*", default=DATA)
    arguments = parser.parse_args()
    found = measure(arguments.trials, arguments.epochs, arguments.pruner, arguments.overrides)
    rows = [
        [
            *(name, str(one["trials"]), str(one["kills"]), str(one["pruned"]), str(one["epochs"])),
            *(f"{one['seconds']:.0f}", f"{one['best_db']:.2f}"),
        ]
        for name in ("unpruned", "pruned")
        for one in (found[name],)
    ]
    print(f"{machine()}; {' '.join(arguments.overrides)}; pruner {arguments.pruner}")
    show(["search", "trials", "killed", "pruned", "epochs", "seconds", "best val/psnr, dB"], rows)
    part = found["part"]
    print(
        f"{part['epochs']:.2f} of the epochs, {part['seconds']:.2f} of the seconds, {found['behind_db']:.3f} dB behind"
    )
    save("search", found)


if __name__ == "__main__":
    main()
