"""Small data, configurations and runs for the tests: everything on the CPU, in seconds."""

from __future__ import annotations

import copy
import csv
import functools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image
from torch import Tensor
from warm_processes import SECONDS

from n2n_lightning import evaluate
from n2n_lightning.data.ee559 import FILES, Ee559Data, write_pkl
from n2n_lightning.data.pairs import Stage, TensorPairs
from n2n_lightning.data.photos import PhotoData
from n2n_lightning.models.module import FORMAT
from n2n_lightning.system import hydra_app
from n2n_lightning.system.folders import config_folder
from n2n_lightning.training.build import build_module
from n2n_lightning.training.callbacks import CSV_COLUMNS, NOISY_COLUMNS
from n2n_lightning.training.run import train
from n2n_lightning.training.settings import RunSettings

ROOT = Path(__file__).parents[1]
hydra_app.load_plugins()  # of N2N_PLUGINS, whose models are then tested as ours are
MODELS = hydra_app.group_choices("model")
SMALL = {  # models that are too big for tests which train them, cut images into tiles, or export
    "dncnn": ("++model.layers=5", "++model.width=8"),
    "nafnet": ("model.width=8", "model.encoder=[1]", "model.decoder=[1]"),
    "nafnet32": ("model.width=8", "model.encoder=[1]", "model.decoder=[1]"),
    "nafnet8": ("model.encoder=[1]", "model.decoder=[1]"),
    "n2v2": ("model.width=8",),
    "red30": ("++model.layers=6", "++model.width=8"),
}
FIVE_MODELS = ("unet", "nn_relu", "nn_sigmoid", "convtrans_relu", "convtrans_sigmoid")
DROPPED = {"seconds", "images_per_second", "device", "git_commit"}  # they depend on the machine and the checkout


def smooth_images(count: int, size: int, seed: int, channels: int = 3) -> npt.NDArray[np.float64]:
    """Draw images of random blobs of a few pixels: (N, C, size, size) in 0..255."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(10, 245, (count * channels, 4, 4)).astype(np.float32)
    fine = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BICUBIC)) for c in coarse]
    images: npt.NDArray[np.float64] = np.stack(fine).clip(0, 255).reshape(count, channels, size, size)
    return images.astype(np.float64)


def write_course_data(
    folder: Path, *, train: int = 96, val: int = 24, size: int = 16, sigma_255: float = 80.0, channels: int = 3
) -> Path:
    """Write the course's two files, with smooth images and Gaussian noise."""
    rng = np.random.default_rng(0)

    def stored(images: npt.NDArray[np.float64], sigma: float) -> Tensor:
        noisy = images + rng.normal(0, sigma, images.shape) if sigma else images
        return torch.from_numpy(np.rint(noisy.clip(0, 255)).astype(np.uint8))

    folder.mkdir(parents=True, exist_ok=True)
    for stage, count, second_sigma in (("train", train, sigma_255), ("val", val, 0.0)):
        clean = smooth_images(count, size, seed=len(stage), channels=channels)
        write_pkl(folder / FILES[stage], stored(clean, sigma_255), stored(clean, second_sigma))
    return folder


def write_photograph(path: Path, *, width: int = 200, height: int = 180, seed: int = 0) -> Path:
    """Write a colour image with fine texture, in the format of the suffix."""
    rng = np.random.default_rng(seed)
    layers = [
        np.asarray(Image.fromarray(rng.integers(0, 256, (n, n, 3), np.uint8)).resize((width, height)), np.float64)
        for n in (3, 24)
    ]
    pixels = 0.5 * layers[0] + 0.3 * layers[1] + rng.uniform(0, 40, (height, width, 1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
    return path


def compose_config(*overrides: str, name: str = "train") -> dict[str, Any]:
    """Compose the configuration of a command line with these overrides."""
    return copy.deepcopy(_composed(name, overrides))


def compose_settings(*overrides: str) -> RunSettings:
    """Compose the settings of ``train`` with these overrides."""
    return RunSettings.unchecked(compose_config(*overrides))


@functools.cache  # Hydra takes a tenth of a second
def _composed(name: str, overrides: tuple[str, ...]) -> dict[str, Any]:
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra_app.resolve_config(compose(name, list(overrides)))


def small(model: str) -> list[str]:
    """Return the overrides that choose a model, in a size for tests."""
    return [f"model={model}", *SMALL.get(model, ())]


def tiny_overrides(root: Path) -> list[str]:
    """Return the overrides that train on the course files in ``root``, on the CPU, in small batches."""
    return ["data=ee559", f"data.root={root}", "data.batch_size=8", "trainer.accelerator=cpu"]


def train_in(folder: Path, root: Path, *overrides: str) -> Path:
    """Train on the course files in this process, without Hydra's command line; return the run's folder."""
    return train_with(folder, *tiny_overrides(root), *overrides)


def train_with(folder: Path, *overrides: str) -> Path:
    """Train on any data in this process, without Hydra's command line; return the run's folder."""
    config = compose_config(*overrides)
    model = next((o.removeprefix("model=") for o in overrides if o.startswith("model=")), "unet")
    train(config, folder, {"model": model, "overrides": {}}, lambda _: folder.mkdir(parents=True, exist_ok=True))
    return folder


def write_checkpoint(path: Path, model: str, *, channels: int = 3, peak: float = 255.0, kind: str = "uint8") -> Path:
    """Write a checkpoint of an untrained net of test size, as training would."""
    torch.manual_seed(3)
    module = build_module(compose_settings(*small(model)), channels)
    with torch.no_grad():
        for parameter in module.net.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.02)  # some start at zero
        parameter.fill_(0.5)  # the last layer's bias, so that its ReLU is not 0 everywhere
    about = {"format": FORMAT, "family": module.family, "peak": peak, "sample_type": kind}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(
        {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams), "n2n_lightning": about}, path
    )
    return path


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_table(folder: Path) -> list[dict[str, str]]:
    """Read ``metrics.csv`` of a run: one dict for each row."""
    with (folder / "metrics.csv").open(newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    names = tuple(table.fieldnames or ())
    assert names == (*CSV_COLUMNS, *(name for name in NOISY_COLUMNS if name in names))
    return rows


def states(out: str) -> dict[str, str]:
    """Parse the table at the end of a sweep: job -> state."""
    lines = out.partition("\nJobs in ")[2].splitlines()[1:-1]
    return {line.split()[1]: line.split()[0] for line in lines}


def timeless(content: dict[str, Any]) -> dict[str, Any]:
    """Drop the entries of a table row, or a ``result.json``, that depend on the machine."""
    return {key: value for key, value in content.items() if key not in DROPPED}


def weights_of(checkpoint: Path) -> dict[str, Tensor]:
    """Return the net's weights by name."""
    state: dict[str, Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return {name: weight for name, weight in state.items() if name.startswith("net.")}


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys() and first
    different = [name for name in first if not torch.equal(first[name], second[name])]
    assert not different


def run_python(arguments: Sequence[str | Path], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``python`` with these arguments in a real process."""
    environment = os.environ | {"COLUMNS": "200"}
    environment.pop("HYDRA_FULL_ERROR", None)
    environment.pop("N2N_FULL_ERROR", None)
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def photo_data(folder: Path | None, cache: Path, **settings: Any) -> PhotoData:
    settings = {"train_pairs": 8, "val_pairs": 4} | settings
    return PhotoData(root=None if folder is None else str(folder), cache_dir=str(cache), **settings)


def tensors(data: PhotoData | Ee559Data, stage: Stage) -> TensorPairs:
    source = data.load(stage)
    assert isinstance(source, TensorPairs)
    return source


def timeless_table(folder: Path) -> list[dict[str, str]]:
    return [timeless(row) for row in read_table(folder)]


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the time of the last change and the size of each file in the folder and below."""
    found = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): (stat.st_mtime_ns, stat.st_size) for path, stat in found.items()}


def evaluate_main() -> int:
    """Call the entry point of ``evaluate``."""
    return hydra_app.run_hydra(evaluate.job, "evaluate")


def skip_where_ignored(number: int) -> None:
    """Skip the test if the signal is ignored, as SIGINT is in background jobs of a shell."""
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{signal.Signals(number).name} is ignored here, as it is by background jobs")


def assert_refused(ended: tuple[int, str, str], folder: Path, *words: str) -> None:
    """Assert exit code 2, one message with these words on standard error, and no new file beside ``given``."""
    code, out, err = ended
    assert code == 2, err
    bars = ("building ", "reading ")  # progress bars
    message = "".join(line for line in err.splitlines(True) if not line.startswith(bars))
    assert message.startswith("error: ") and message.count("error: ") == 1
    assert "Traceback" not in out + err
    for word in words:
        assert word in message
    left = {path.name for path in folder.iterdir()} - {"given"}
    assert not left, f"left behind: {left}"


RESULT_KEYS = {  # of the contract
    *("model", "optimizer", "data", "params", "gmac", "epochs", "monitor", "best_epoch", "noisy_psnr"),
    *("val/psnr", "val/psnr_pooled", "val/ssim", "val/loss"),
    *("images_per_second", "seconds", "device", "seed", "versions", "git_commit", "status"),
}
METRICS_COLUMNS = {"epoch", "train/loss", "val/loss", "val/psnr", "val/ssim", "lr", "seconds"}


def check_run_folder(folder: Path, *, epochs: int) -> None:
    """Assert what the contract says about a run's folder."""
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files >= {".hydra/config.yaml", ".hydra/overrides.yaml", "metrics.csv", "result.json"}
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    assert sum(name.startswith("events.out.tfevents.") for name in files) == 1
    assert not [name for name in files if name.endswith(".part")]
    rows = read_table(folder)
    assert rows[0].keys() == METRICS_COLUMNS
    assert [int(row["epoch"]) for row in rows] == list(range(1, epochs + 1))
    assert all(math.isfinite(float(value)) for row in rows for value in row.values())
