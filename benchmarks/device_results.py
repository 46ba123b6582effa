"""Read what the parts of ``benchmarks.device`` have found: a line of text for each row of its table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.device_steps import NO_GRAPH, cell
from n2n_lightning.system.atomic import read_json

SCORES = ("model", "status", "epochs", "val/psnr", "images_per_second", "seconds")  # of result.json


def saved(name: str) -> Callable[[Path], list[str]]:
    """Return a function that reads the rows which a benchmark has saved."""

    def find(folder: Path) -> list[str]:
        rows = read_json(folder / f"outputs/benchmarks/{name}.json").get("rows", [])
        return [", ".join(f"{key} {cell(value)}" for key, value in row.items()) for row in rows]

    return find


def results_below(folder: Path) -> list[dict[str, Any]]:
    return [read_json(path) for path in sorted(folder.rglob("result.json"))]


def runs(name: str) -> Callable[[Path], list[str]]:
    """Return a function that reads the scores of the runs in a folder."""

    def find(folder: Path) -> list[str]:
        results = results_below(folder / name)
        return [", ".join(f"{key} {cell(result.get(key))}" for key in SCORES) for result in results]

    return find


def graph_scores(folder: Path) -> list[str]:
    """Return a line for each model: its PSNR with a graph and without, each the mean of the same seeds."""
    scored = [result for result in results_below(folder / "graph") if "val/psnr" in result]
    lines = []
    for model in sorted({result["model"] for result in scored}):
        by_seed: dict[str, dict[int, float]] = {"auto": {}, "false": {}}  # graph= -> seed -> dB
        for result in scored:
            if result["model"] == model:
                by_seed[result["overrides"]["graph"].lower()][result["seed"]] = result["val/psnr"]
        if seeds := by_seed["auto"].keys() & by_seed["false"].keys():
            graph, eager = (mean(scores[seed] for seed in seeds) for scores in by_seed.values())
            found = f"{model}, mean of {len(seeds)} seeds: graph=auto {graph:.3f} dB, graph=false {eager:.3f} dB"
            found += f", difference {graph - eager:+.3f} dB"
            lines.append(found if torch.cuda.is_available() else f"{found} ({NO_GRAPH}, so none has a graph)")
    return lines


def last_line(name: str) -> Callable[[Path], list[str]]:
    """Return a function that reads the last line of a part's output."""
    return lambda folder: log_lines(folder, name)[-1:]


def log_lines(folder: Path, name: str) -> list[str]:
    text = (folder / f"{name.replace(' ', '_')}.log").read_text(errors="replace").replace("\r", "\n")
    return [line.strip() for line in text.splitlines() if line.strip()]
