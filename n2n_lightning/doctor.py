"""Look at noisy images before training: ``python -m n2n_lightning.doctor data=burst data.root=FOLDER``."""

from __future__ import annotations

import contextlib
import io
import math
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from n2n_lightning.system import errors, hydra_app, plugin_loading
from n2n_lightning.system.folders import config_folder, write_fault

if TYPE_CHECKING:
    from n2n_lightning.data.scenes import Scene
    from n2n_lightning.diagnosis import Finding, Findings
    from n2n_lightning.diagnosis.sample import FrameReader

SOURCES = ("burst", "pairs", "single")  # choices of data= whose images are noisy
VERDICT_OF = {"fatal": "cannot", "harmful": "advice", "note": "fine"}  # by the worst finding


@hydra.main(config_path=str(config_folder()), config_name="doctor", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """Examine the images. Errors are reported here, because Hydra would add a line of its own to them."""
    try:
        verdict = examine_data(hydra_app.resolve_config(cfg), list(HydraConfig.get().overrides.task))
    except errors.InputError as error:
        errors.report_error(error)
        verdict = VERDICT_OF["fatal"]
    if verdict == VERDICT_OF["fatal"]:
        sys.exit(errors.BAD_INPUT)


def examine_data(config: dict[str, Any], overrides: list[str]) -> str:
    """Examine a sample of the images, print what was found, write it as JSON and as a picture; return the verdict.

    ``overrides`` are those of the command line, for the command that is advised.

    Raises:
        errors.InputError: the configuration is wrong, or no image can be read.
    """
    from rich.console import Console
    from rich.progress import Progress

    from n2n_lightning.data.choices import DATA, is_file_source
    from n2n_lightning.data.scene_data import SceneData, fault_list
    from n2n_lightning.diagnosis import examine, judge
    from n2n_lightning.reporting.diagnosis_figure import draw_findings
    from n2n_lightning.system.atomic import atomic_write, write_json
    from n2n_lightning.training.build import build_datamodule
    from n2n_lightning.training.check import check_data

    source, folder = config["data"]["name"], Path(config["output"])
    try:
        sources = [*SOURCES, *(name for name in plugin_loading.registered("data") if is_file_source(DATA[name]))]
        if source not in sources:
            raise ValueError(f"data must be one of {', '.join(sources)}, got {source}; set data=burst")
        settings = check_data(config)
        if fault := write_fault(folder / "doctor.json"):
            raise ValueError(f"{folder} cannot be written ({fault}); set output=FOLDER")
        data = build_datamodule(settings).data
        assert isinstance(data, SceneData)
        scenes, faults = data.find_scenes("train") or ([], [])
        misfits = data.misfits(scenes)
        scenes = [scene for scene in scenes if scene not in misfits]
        faults = list(dict.fromkeys([*faults, *misfits.values()]))  # pages of a file share a fault
        if not scenes:
            raise ValueError("\n".join(faults) or "no image was found; set data.root=FOLDER")
        if faults and data.skip_bad:
            print(fault_list(faults, "left out"), file=sys.stderr, flush=True)
            faults = []
    except (ValueError, OSError) as error:
        raise errors.InputError(error) from error
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("examining scenes", total=None)
        findings = examine(
            [sampled_scene(scene) for scene in scenes],
            lambda done, total: progress.update(task, completed=done, total=total),
        )
    useful = useful_settings(config["data"], scenes)
    found = [kept for finding in judge(findings, source) if (kept := with_useful_settings(finding, *useful, source))]
    worst = "fatal" if faults else min((f.severity for f in found), key=list(VERDICT_OF).index, default="note")
    summary = summarize(scenes, findings)
    print("\n".join(f"{name}: {text}" for name, text in summary.items()))
    print_findings(found, faults)
    write_json(folder / "doctor.json", as_json(VERDICT_OF[worst], summary, found, faults))
    with atomic_write(folder / "doctor.png") as file:
        file.write(draw_findings(findings))
    print(f"verdict: {VERDICT_OF[worst]}\n{folder / 'doctor.json'}\n{folder / 'doctor.png'}")
    if not faults and all(f.settings for f in found if f.severity == "fatal"):
        print(f"next: {training_command(config, overrides, found)}")
    return VERDICT_OF[worst]


def useful_settings(data: dict[str, Any], scenes: list[Scene]) -> tuple[set[str], float]:
    """Return the settings of this choice of ``data=`` that suit the images, and the range that training would take."""
    import numpy as np

    from n2n_lightning.image_io.value_range import covering_range, join_spans

    stacks = [image.stack for scene in scenes for image in scene.noisy]
    dtype = np.dtype(stacks[0].dtype)
    fixed = {"data.range"} if dtype == np.uint8 else set()
    found_range = covering_range(join_spans([stack.values for stack in stacks]), dtype)
    return {f"data.{key}" for key in data} - fixed, data["range"] or found_range


def with_useful_settings(finding: Finding, known: set[str], found_range: float, source: str) -> Finding | None:
    """Drop advice that is followed already, or that does not go with ``data``; return None if no finding is left.

    The other arguments are those of ``useful_settings``, and the choice of ``data=``.
    """

    def is_useful(word: str) -> bool:
        key, _, value = word.partition("=")
        if key == "data.range" and float(value) >= found_range:
            return False
        if word == "loss=l1" and source == "single":  # which has losses of its own
            return False
        return key in known if key.startswith("data.") else word != f"data={source}"

    settings = tuple(filter(is_useful, finding.settings))
    if finding.kind == "outliers" and math.isnan(finding.effect_db) and not settings:  # it was about the range alone
        return None
    return replace(finding, settings=settings)


def advised_settings(found: Iterable[Finding]) -> list[str]:
    """Return the settings that findings advise, each once; of several ranges the widest."""
    words = dict.fromkeys(word for finding in found for word in finding.settings)
    ranges = sorted((float(value), word) for word in words if (value := word.removeprefix("data.range=")) != word)
    return [word for word in words if word not in [narrower for _, narrower in ranges[:-1]]]


def sampled_scene(scene: Scene) -> FrameReader:
    """Return the noisy images of a scene in the form that ``diagnosis`` takes; values stay as stored."""
    from n2n_lightning.diagnosis.sample import FrameReader

    def read(number: int, top: int, left: int, height: int, width: int) -> Any:
        image = scene.noisy[number]
        return image.stack.read(image.number, top, left, height, width)

    several_files = len({image.stack.name for image in scene.noisy}) > 1
    names = [image.stack.name if several_files else f"page {image.number + 1}" for image in scene.noisy]
    return FrameReader(scene.name, tuple(names), scene.noisy[0].stack.shape[1:], read)


def summarize(scenes: list[Scene], findings: Findings) -> dict[str, str]:
    """Return the images as they were understood, and the noise of the median scene, in words."""
    import numpy as np

    stacks = [image.stack for scene in scenes for image in scene.noisy]
    height, width, channels = stacks[0].shape[1:]
    counts = sorted({len(scene.noisy) for scene in scenes})
    frames = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    counted = [f"{count} images a file" if axis == "?" else f"{axis}={count}" for axis, count in stacks[0].image_axes]
    axes = " x ".join(counted) or "one image a file"
    summary = {
        "scenes": f"{len(scenes)}, noisy images of each: {frames}",
        "images": f"{width}x{height} px, {channels} channel{'s' * (channels > 1)} of {np.dtype(stacks[0].dtype)}, "
        f"{axes} (of the first file)",
        "values": f"{min(s.low for s in stacks):g} to {max(s.high for s in stacks):g}"
        f", {sum(s.outliers for s in stacks) or 'none'} far out",
    }
    noises = sorted((s.noise for s in findings.scenes if s.noise is not None), key=lambda noise: noise.sd)
    if noises:
        noise = noises[len(noises) // 2]
        fit = "" if noise.gain is None else f", variance {noise.gain:.4g} x value {noise.intercept:+.4g}"
        rough = " (of single images, rough)" if noise.frames == 1 else ""
        median = f" (the median of {len(noises)} scenes)" if len(noises) > 1 else ""
        summary["noise"] = f"standard deviation {noise.sd:.4g}{fit}{rough}{median}"
    near = [s.spatial.rho for s in findings.scenes if s.spatial is not None]
    if near:
        most = max((max(rho, key=abs) for rho in near), key=abs)
        summary["noise of neighbouring pixels"] = f"largest correlation {most:.2f}"
    return summary


def print_findings(found: list[Finding], faults: list[str]) -> None:
    """Print what was found, the worst kind first, and what to set."""
    for fault in faults:
        print(f"fatal: {fault}\n    set: data.skip_bad=true, or correct it")
    shared = os.path.commonpath([Path(f.scene).parent.parent for f in found if f.scene] or [Path()])
    kinds = {finding.kind: [other for other in found if other.kind == finding.kind] for finding in found}
    for findings in kinds.values():
        for finding in findings:
            scene = os.path.relpath(finding.scene, shared) if finding.scene else ""
            print(": ".join(part for part in (finding.severity, scene, finding.message) if part))
        if settings := advised_settings(findings):
            print(f"    set: {' '.join(settings)}")
    if not found and not faults:
        print("nothing was found that harms training or the estimate of quality")


def training_command(config: dict[str, Any], overrides: list[str], found: list[Finding]) -> str:
    """Return the command line that trains on these images with the settings that were advised, or why there is none."""
    source, advised = config["data"]["name"], advised_settings(found)
    advised = [word for word in advised if word.startswith(("data.", "loss=", "loss."))]
    if "data.skip_bad=true" in advised and (fault := fault_with(config, advised)):
        return f"no training on these images: {fault}"
    given = [f"data={source}", *(word for word in overrides if word.startswith(("data.", "plugins=")))]
    return shlex.join(["python", "-m", "n2n_lightning.train", *dict.fromkeys([*given, *advised])])


def fault_with(config: dict[str, Any], advised: list[str]) -> str | None:
    """Return why training cannot start with the settings of ``data`` that were advised; None if it can."""
    from n2n_lightning.training.build import build_datamodule
    from n2n_lightning.training.check import check_data

    changes = OmegaConf.from_dotlist([word for word in advised if word.startswith("data.")])
    changed = DictConfig(OmegaConf.merge(OmegaConf.create(config), changes))
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # what is left out was told
            build_datamodule(check_data(hydra_app.resolve_config(changed))).setup("fit")
    except ValueError as error:
        return str(error).partition("\n")[0].rstrip(":")
    return None


def as_json(verdict: str, summary: dict[str, str], found: list[Finding], faults: list[str]) -> dict[str, Any]:
    """Return what ``doctor.json`` holds, in plain types."""
    findings: list[dict[str, Any]] = [{"kind": "file", "severity": "fatal", "message": fault} for fault in faults]
    for finding in found:
        effect = None if math.isnan(finding.effect_db) else round(finding.effect_db, 3)
        value = finding.value if math.isfinite(finding.value) else None
        parts = {"scene": finding.scene, "frames": list(finding.frames), "value": value, "effect_db": effect}
        about = {"kind": finding.kind, "severity": finding.severity, "message": finding.message}
        findings.append(about | parts | {"settings": list(finding.settings)})
    return {"verdict": verdict, "summary": summary, "findings": findings}


def main() -> int:
    """Run the command and return the exit code: 0 fine or with advice, 2 if the images cannot work."""
    return hydra_app.run_hydra(job, "doctor")


if __name__ == "__main__":
    sys.exit(main())
