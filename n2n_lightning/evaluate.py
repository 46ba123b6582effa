"""Score a checkpoint: ``python -m n2n_lightning.evaluate checkpoint=PATH data=NAME [data.key=value] ...``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from n2n_lightning.system import errors, hydra_app
from n2n_lightning.system.folders import config_folder, run_name

MAX_NAME = 200  # characters; most file systems end at 255 bytes

if TYPE_CHECKING:
    from n2n_lightning.data.datamodule import NoisyPairDataModule
    from n2n_lightning.data.pairs import PairData
    from n2n_lightning.models.module import DenoiserModule


@hydra.main(config_path=str(config_folder()), config_name="evaluate", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """Evaluate; errors are answered here, since Hydra would announce them with a line of its own."""
    hydra_config = HydraConfig.get()
    said = [
        word for word in hydra_config.overrides.task if word.partition("=")[0] not in ("checkpoint", "data", "output")
    ]
    try:
        score(hydra_app.resolve_config(cfg), run_name(hydra_config.runtime.choices["data"], said))
    except errors.InputError as error:
        errors.report_error(error)
        sys.exit(errors.BAD_INPUT)


def score(config: dict[str, Any], data_name: str) -> None:
    """Evaluate, print, write JSON.

    Args:
        config: the resolved configuration.
        data_name: of the data and what else was chosen, for the name of the JSON file.

    Raises:
        errors.InputError: the configuration, the checkpoint or the data is wrong.
    """
    from n2n_lightning.metrics import RestorationQuality
    from n2n_lightning.models.checkpoint import load_denoiser
    from n2n_lightning.system.atomic import write_json
    from n2n_lightning.training.build import build_datamodule
    from n2n_lightning.training.check import check_data

    try:
        check_data(config)
        if not isinstance(config["quantize"], bool):
            raise ValueError(f"quantize must be true or false, got {config['quantize']!r}; set quantize=true")
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
        raise errors.InputError(error) from error
    data = config["data"] | {"fingerprint": datamodule.data.fingerprint(), "peak": datamodule.data.peak}
    if datamodule.data.sample_type != "uint8":
        print(f"range 0 to {datamodule.data.peak:g}")
    module.quality = RestorationQuality(quantize=config["quantize"])
    noise = {"noise": config["noise"]} if config["noise"]["name"] else {}
    scores = {"checkpoint": config["checkpoint"], "data": data, **noise, "quantize": config["quantize"]}
    scores |= evaluate(module, datamodule)
    path = Path(config["output"] or default_output(config["checkpoint"], data_name))
    write_json(path, scores)
    if "image" in scores.get("per_image", {}) and config["data"]["crop_px"] is None:
        print(as_rows(scores["per_image"]))
    print(as_text(scores))
    print(path)


def evaluate(module: DenoiserModule, datamodule: NoisyPairDataModule) -> dict[str, Any]:
    """Scores of the module on the data's validation set: means, the paired gain, and each image's own.

    Returns:
        ``val/psnr``, ``val/psnr_pooled``, ``val/ssim``, ``val/loss``, ``noisy_psnr``, ``gain_db`` (mean over images of
        ``psnr - noisy_psnr``) with ``gain_standard_error_db``, ``images`` (their number), and ``per_image``.
    """
    import pytorch_lightning as pl

    from n2n_lightning.data.clean import CleanPairs
    from n2n_lightning.training.run import quiet_lightning

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
        sys.exit(errors.signal_exit_code(stop))
    unprefixed = ("noisy_psnr", "noisy_psnr_pairs", "constant_channels")
    scores = {f"val/{k}": v for k, v in module.scores.items() if k not in unprefixed}
    if "noisy_psnr_pairs" in module.scores:
        scores["noisy_psnr_pairs"] = module.scores["noisy_psnr_pairs"]
    if "val/psnr" not in scores:
        return scores
    per_image = module.quality.per_image()
    gain = per_image["psnr"] - per_image["noisy_psnr"]
    error = gain.std().item() / math.sqrt(len(gain)) if len(gain) > 1 else None
    source = datamodule.sources["val"]
    names = {"image": source.names} if isinstance(source, CleanPairs) else {}
    values = {
        name: [None if math.isnan(value) else round(value, 4) for value in values.tolist()]  # NaN is no JSON
        for name, values in per_image.items()
    }
    return scores | {
        "noisy_psnr": module.scores["noisy_psnr"],
        "gain_db": gain.mean().item(),
        "gain_standard_error_db": error,
        "images": len(gain),
        "per_image": names | values,
    }


def take_range(data: PairData, module: DenoiserModule) -> None:
    """Scale images of the training's kind as those of the training were; a given range wins."""
    from n2n_lightning.data.scene_data import SceneData

    if isinstance(data, SceneData):
        data.use_training_range(module.peak, module.sample_type)


def default_output(checkpoint: str, data: str) -> Path:
    """Named after the study and the run, or after the file where that is all there is."""
    path = Path(checkpoint)
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    name = f"{folder.parent.name}-{folder.name}" if path.stem in ("best", "last") else path.stem
    return Path("outputs/evaluate") / f"{f'{name}-{data}'[:MAX_NAME]}.json"


def as_rows(per_image: dict[str, list[Any]]) -> str:
    """A line for each image."""
    names = [Path(name).name for name in per_image["image"]]
    width = max(map(len, names))
    keys = [key for key in ("noisy_psnr", "psnr", "ssim") if key in per_image]
    lines = [f"{'image':<{width}}  {'  '.join(f'{key:>10}' for key in keys)}"]
    for row, name in enumerate(names):
        values = [per_image[key][row] for key in keys]
        texts = ["-" if value is None else f"{value:.4f}" for value in values]
        lines.append(f"{name:<{width}}  {'  '.join(f'{text:>10}' for text in texts)}")
    return "\n".join(lines)


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
    sys.exit(hydra_app.run_hydra(job, "evaluate"))
