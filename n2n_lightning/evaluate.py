"""Score a checkpoint: ``python -m n2n_lightning.evaluate checkpoint=PATH data=NAME [data.key=value] ...``."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig

from n2n_lightning import cli

if TYPE_CHECKING:
    from n2n_lightning.datamodule import NoisyPairDataModule
    from n2n_lightning.module import DenoiserModule
    from n2n_lightning.pairs import PairData


@hydra.main(config_path=str(cli.config_folder()), config_name="evaluate", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """Evaluate; errors are answered here, since Hydra would announce them with a line of its own."""
    try:
        score(cli.plain(cfg))
    except cli.InputError as error:
        cli.report_error(error)
        sys.exit(cli.BAD_INPUT)


def score(config: dict[str, Any]) -> None:
    """Evaluate, print, write JSON.

    Raises:
        cli.InputError: the configuration, the checkpoint or the data is wrong.
    """
    from n2n_lightning.callbacks import write_json
    from n2n_lightning.checkpoint import load_denoiser
    from n2n_lightning.compose import build_datamodule, check_data

    try:
        check_data(config)
        module = load_denoiser(config["checkpoint"])
        datamodule = build_datamodule(config)
        take_range(datamodule.data, module)
        datamodule.setup("validate")
        if datamodule.image_shape[0] != module.hparams["channels"]:
            raise ValueError(
                f"{config['checkpoint']} denoises images of {module.hparams['channels']} channels, "
                f"the data has {datamodule.image_shape[0]}; choose other data or another checkpoint"
            )
    except (ValueError, OSError) as error:
        raise cli.InputError(error) from error
    data = config["data"] | {"fingerprint": datamodule.data.fingerprint(), "peak": datamodule.data.peak}
    if datamodule.data.sample_type != "uint8":
        print(f"range 0 to {datamodule.data.peak:g}")
    scores = {"checkpoint": config["checkpoint"], "data": data} | evaluate(module, datamodule)
    path = Path(config["output"] or default_output(config["checkpoint"], config["data"]["name"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, scores)
    print(as_text(scores))
    print(path)


def evaluate(module: DenoiserModule, datamodule: NoisyPairDataModule) -> dict[str, Any]:
    """Scores of the module on the data's validation set: means, the paired gain, and each image's own.

    Returns:
        ``val/psnr``, ``val/psnr_pooled``, ``val/ssim``, ``val/loss``, ``noisy_psnr``, ``gain_db`` (mean over images of
        ``psnr - noisy_psnr``) with ``gain_standard_error_db``, ``images`` (their number), and ``per_image``.
    """
    import pytorch_lightning as pl

    from n2n_lightning.training import quiet_lightning

    quiet_lightning()
    trainer = pl.Trainer(
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    try:
        trainer.validate(module, datamodule, verbose=False)
    except SystemExit as stop:  # Lightning's answer to a signal
        sys.exit(cli.signal_code(stop))
    unprefixed = ("noisy_psnr", "noisy_psnr_pairs", "constant_channels")
    scores = {f"val/{k}": v for k, v in module.scores.items() if k not in unprefixed}
    if "noisy_psnr_pairs" in module.scores:
        scores["noisy_psnr_pairs"] = module.scores["noisy_psnr_pairs"]
    if "val/psnr" not in scores:
        return scores
    per_image = module.quality.per_image()
    gain = per_image["psnr"] - per_image["noisy_psnr"]
    error = gain.std().item() / math.sqrt(len(gain)) if len(gain) > 1 else None
    return scores | {
        "noisy_psnr": module.scores["noisy_psnr"],
        "gain_db": gain.mean().item(),
        "gain_standard_error_db": error,
        "images": len(gain),
        "per_image": {name: [round(value, 4) for value in values.tolist()] for name, values in per_image.items()},
    }


def take_range(data: PairData, module: DenoiserModule) -> None:
    """Floats, or whole numbers of more than 8 bits, are scaled as those of the training were; a given range wins."""
    import numpy as np

    from n2n_lightning.ranges import known_range
    from n2n_lightning.sources.scene_data import SceneData

    peak = known_range(np.dtype(data.sample_type), module.peak, module.sample_type)
    if isinstance(data, SceneData) and data.range is None and peak is not None:
        data.content = replace(data.content, peak=peak)


def default_output(checkpoint: str, data: str) -> Path:
    """Named after the study and the run, or after the file where that is all there is."""
    path = Path(checkpoint)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = f"{folder.parent.name}-{folder.name}" if path.stem in ("best", "last") else path.stem
    return Path("outputs/evaluate") / f"{name}-{data}.json"


def as_text(scores: dict[str, Any]) -> str:
    """The means as lines."""
    lines = [f"{key:<20} {value:.4f}" for key, value in scores.items() if key.startswith("val/")]
    if "noisy_psnr_pairs" in scores:
        gain = scores["val/psnr_pairs"] - scores["noisy_psnr_pairs"]
        lines += [f"{'noisy_psnr_pairs':<20} {scores['noisy_psnr_pairs']:.4f}", f"{'gain of pairs, dB':<20} {gain:.2f}"]
    if "gain_db" in scores:
        error = scores["gain_standard_error_db"]
        gain = f"{scores['gain_db']:.2f}" + (f" +- {error:.2f} (standard error)" if error is not None else "")
        lines += [
            f"{'noisy_psnr':<20} {scores['noisy_psnr']:.4f}",
            f"{'gain, dB':<20} {gain}, {scores['images']} images",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(cli.run_hydra(job, "evaluate"))
