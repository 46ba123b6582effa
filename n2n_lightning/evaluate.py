"""Score a checkpoint: ``python -m n2n_lightning.evaluate checkpoint=PATH data=NAME [data.key=value] ...``."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from n2n_lightning.reporting.printing import TextTable
from n2n_lightning.system import errors, hydra_app
from n2n_lightning.system.folders import config_folder, write_fault
from n2n_lightning.system.run_names import run_name

MAX_STEM_BYTES = 200  # of a file's name; most file systems allow 255

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from n2n_lightning.data.datamodule import NoisyPairDataModule
    from n2n_lightning.data.pairs import PairData
    from n2n_lightning.models.module import DenoiserModule
    from n2n_lightning.training.settings import DataSettings


@hydra.main(config_path=str(config_folder()), config_name="evaluate", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """Score the checkpoint. Errors are reported here, because Hydra would add a line of its own to them."""
    hydra_config = HydraConfig.get()
    not_named = ("checkpoint", "data", "output")
    named = [word for word in hydra_config.overrides.task if word.partition("=")[0] not in not_named]
    try:
        name = run_name(hydra_config.runtime.choices["data"], named, hashed=False)
        code = score(hydra_app.resolve_config(cfg), name)
    except errors.InputError as error:
        errors.report_error(error)
        code = errors.BAD_INPUT
    if code:
        sys.exit(code)


def score(config: dict[str, Any], data_name: str) -> int:
    """Score a checkpoint, print the scores and write them as JSON; return the exit code.

    Args:
        config: the resolved configuration.
        data_name: the data and the other overrides, for the name of the JSON file.

    Raises:
        errors.InputError: the configuration, the checkpoint or the data is wrong, or there is no place for the file.
    """
    from n2n_lightning.data.frame_data import FrameData
    from n2n_lightning.metrics import RestorationQuality
    from n2n_lightning.system.atomic import write_json
    from n2n_lightning.training.run_metadata import describe_data
    from n2n_lightning.training.value_checks import range_line

    try:
        settings = check_settings(config)
        path = Path(config["output"]) if config["output"] else default_output(config, data_name)
        if fault := write_fault(path):
            raise ValueError(f"{path} cannot be written ({fault}); set output=FILE")
        module, datamodule = load_both(config["checkpoint"], settings)
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    data = datamodule.data
    if data.sample_type != "uint8":
        print(range_line(data))
    module.quality = RestorationQuality(quantize=config["quantize"])
    if isinstance(data, FrameData):
        for warning in data.warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
    scores = {
        "checkpoint": config["checkpoint"],
        "data": config["data"] | describe_data(data),
        **({"noise": config["noise"]} if config["noise"]["name"] else {}),
        "quantize": config["quantize"],
        **evaluate(module, datamodule),
    }
    if "image" in scores.get("per_image", {}) and config["data"]["crop_px"] is None:
        image_table(scores["per_image"]).show()
    mean_table(scores).show()
    try:
        write_json(path, scores)
    except OSError as error:
        reason = error.strerror or error
        errors.report_error(error, f"the scores could not be written to {path} ({reason}); set output=FILE")
        return errors.FAILED
    print(path)
    return errors.DONE


def check_settings(config: dict[str, Any]) -> DataSettings:
    """Return the settings of the data; a ValueError lists the faults of the configuration. Nothing is read."""
    from n2n_lightning.training.check import check_data

    settings = check_data(config)
    if not isinstance(config["quantize"], bool):
        raise ValueError(f"quantize must be true or false, got {config['quantize']!r}; set quantize=true")
    return settings


def load_both(checkpoint: str, settings: DataSettings) -> tuple[DenoiserModule, NoisyPairDataModule]:
    """Load the checkpoint and the data, and check that they fit; ValueError or OSError if something is wrong."""
    from n2n_lightning.models.checkpoint import find_checkpoint, load_denoiser
    from n2n_lightning.models.grey import knows_grey, use_for_grey
    from n2n_lightning.training.build import build_datamodule

    module, datamodule = load_denoiser(checkpoint), build_datamodule(settings)
    module.loss  # noqa: B018  # a ValueError where it is unknown, before data is read
    take_range(datamodule.data, module)
    datamodule.setup("validate")
    if datamodule.image_shape[0] == 1 != module.hparams["channels"] and knows_grey(find_checkpoint(checkpoint)):
        use_for_grey(module)
        print("the images are grey: each goes through the net as one whose channels are equal")
    if datamodule.image_shape[0] != module.hparams["channels"]:
        raise ValueError(
            f"{checkpoint} denoises images of {module.hparams['channels']} channels, "
            f"the data has {datamodule.image_shape[0]}; choose other data or another checkpoint"
        )
    return module, datamodule


def evaluate(module: DenoiserModule, datamodule: NoisyPairDataModule) -> dict[str, Any]:
    """Score the module on the data's validation set.

    Returns:
        ``val/psnr``, ``val/psnr_pooled``, ``val/ssim``, ``val/loss``, ``noisy_psnr``, ``gain_db`` (mean over images of
        ``psnr - noisy_psnr``) with ``gain_standard_error_db``, ``images`` (their number), and ``per_image``. Without
        clean images only ``val/psnr_pairs``, ``noisy_psnr_pairs`` and ``val/loss``, as far as they can be measured.
        ``residual_correlation`` is the autocorrelation of noisy minus denoised that is farthest from 0, at lags of 1
        and 2 px.
    """
    from n2n_lightning.data.clean import CleanPairs
    from n2n_lightning.training.image_grid import ResidualCorrelation

    residual = ResidualCorrelation()
    validate(module, datamodule, residual)
    unprefixed = ("noisy_psnr_pairs", "noisy_psnr", "constant_channels")
    scores = {f"val/{name}": value for name, value in module.scores.items() if name not in unprefixed}
    scores |= {name: module.scores[name] for name in unprefixed[:2] if name in module.scores}
    if (correlation := residual.value()) is not None:
        scores["residual_correlation"] = correlation
    if "val/psnr" not in scores:
        return scores
    per_image = module.quality.per_image()
    gain = per_image["psnr"] - per_image["noisy_psnr"]
    source = datamodule.sources["val"]
    names = {"image": source.names} if isinstance(source, CleanPairs) else {}
    values = {
        name: [None if math.isnan(value) else round(value, 4) for value in values.tolist()]  # JSON has no NaN
        for name, values in per_image.items()
    }
    return scores | {
        "gain_db": gain.mean().item(),
        "gain_standard_error_db": gain.std().item() / math.sqrt(len(gain)) if len(gain) > 1 else None,
        "images": len(gain),
        "per_image": names | values,
    }


def validate(module: DenoiserModule, datamodule: NoisyPairDataModule, callback: Callback) -> None:
    """Run the validation set through the module, which then has the scores; exit with a signal's code on a signal."""
    import pytorch_lightning as pl

    from n2n_lightning.training.run import quiet_lightning

    quiet_lightning()
    trainer = pl.Trainer(
        devices=1,
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    try:
        trainer.validate(module, datamodule, verbose=False)
    except SystemExit as stop:  # raised by Lightning on a signal
        sys.exit(errors.signal_exit_code(stop))


def take_range(data: PairData, module: DenoiserModule) -> None:
    """Scale images of the training's kind as those of the training were; a given range wins.

    Raises:
        ValueError: the images are on another scale than those of the training.
    """
    from n2n_lightning.data.scene_data import SceneData

    if isinstance(data, SceneData):
        data.use_training_range(module.peak, module.sample_type, module.reach)
        if warning := data.values.outlier_warning():
            print(f"warning: {warning}", file=sys.stderr, flush=True)


def default_output(config: dict[str, Any], data_name: str) -> Path:
    """Return the JSON file's path: named after the study, the run and the data, with a hash that tells them apart.

    The names leave out most of the paths. The hash is of the checkpoint's whole path and of all settings that change
    the scores, so the same command in the same folder always writes the same file.
    """
    from n2n_lightning.models.checkpoint import find_checkpoint
    from n2n_lightning.training.run_metadata import RESULT_NEUTRAL

    path = find_checkpoint(config["checkpoint"]).absolute()
    folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    names = [folder.parent.name, folder.name] if path.stem in ("best", "last") else [folder.name, path.stem]
    name = "-".join([*names, *(["last"] if path.stem == "last" else []), data_name])
    settings = hydra_app.flatten({key: config[key] for key in ("data", "noise", "quantize")})
    chosen = {key: value for key, value in settings.items() if key not in RESULT_NEUTRAL}
    digest = hashlib.sha256(json.dumps([str(path), chosen], sort_keys=True).encode()).hexdigest()[:8]
    stem = name.encode()[:MAX_STEM_BYTES].decode(errors="ignore")
    return Path("outputs/evaluate") / f"{stem}-{digest}.json"


def image_table(per_image: dict[str, list[Any]]) -> TextTable:
    """Return a table with a row for each image."""
    titles = [key for key in ("image", "noisy_psnr", "psnr", "ssim") if key in per_image]
    rows = [
        [Path(name).name, *("-" if value is None else f"{value:.4f}" for value in values)]
        for name, *values in zip(*(per_image[key] for key in titles), strict=True)
    ]
    return TextTable(titles, rows, [title != "image" for title in titles])


def mean_table(scores: dict[str, Any]) -> TextTable:
    """Return a table with a row for each mean over the images."""
    rows = [
        (key, f"{value:.4f}") for key, value in scores.items() if key.startswith(("val/", "noisy_psnr", "residual_"))
    ]
    if "noisy_psnr_pairs" in scores:
        rows.append(("gain of pairs, dB", f"{scores['val/psnr_pairs'] - scores['noisy_psnr_pairs']:.2f}"))
    if "gain_db" in scores:
        error = scores["gain_standard_error_db"]
        accuracy = "" if error is None else f" +- {error:.2f} (standard error)"
        rows.append(("gain, dB", f"{scores['gain_db']:.2f}{accuracy}, {scores['images']} images"))
    return TextTable((), rows)


def main() -> int:
    """Return the exit code: 0 done, 1 the work failed, 2 the input was wrong, 130 and 143 on signals."""
    return hydra_app.run_hydra(job, "evaluate")


if __name__ == "__main__":
    sys.exit(main())
