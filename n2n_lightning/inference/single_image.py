"""Look at one noisy image, and choose how to denoise it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from n2n_lightning.diagnosis.removed import Removed, measure_removed
from n2n_lightning.diagnosis.single_image import MIN_SIDE_PX, ImageNoise, find_noise, whole_patches
from n2n_lightning.diagnosis.single_quality import SingleNoise, as_db, sure_db
from n2n_lightning.diagnosis.spacing import NoiseSpacing, find_spacing
from n2n_lightning.image_io.image_file import ImageReader
from n2n_lightning.image_io.net_scale import Scale
from n2n_lightning.image_io.value_range import Limits
from n2n_lightning.inference.denoiser import Denoiser
from n2n_lightning.inference.passes import Passes

WINDOW_PX, MOST_ACROSS = 256, 3  # sides of the windows that are looked at, and how many in a row and a column
MOST_PAGES = 3
MOST_CHANNELS = 12  # that are looked at; of so many, each goes through the net by itself
PASSES = {2: Passes((1, 2), again=True), 3: Passes((3, 4), again=True), 4: Passes((4, 5), again=True)}  # by spacing
TURNS = ((2e6, 8), (8e6, 4), (30e6, 2))  # up to so many px in a file, so many flips and rotations; 1 beyond
LEAST_CORRELATED = 0.0055  # sd as a part of the contrast: less is texture, 1.4 of 255
MOST_SHARE = 0.45  # of noise that is independent at 3 px, without spacing: 0.04 to 0.4 were seen
LEAST_ERROR_DB = 1.0  # of an estimated PSNR; 0.9 was seen on a photograph of floats
DOUBTS = {
    "small": "the image is too small",
    "constant": "most of the image is constant",
    "clean": "there is hardly any noise to measure",
    "correlated": "texture, or noise that is correlated between pixels",
    "unlike": "the noise is unlike Gaussian and Poisson noise, for instance clipped",
}


def read_windows(image: ImageReader, most_rows: int, scale: Scale, bounds: Limits | None) -> Tensor:
    """Return windows spread over some pages of a file: (pages, N, C, h, w) float32 in units of the range.

    Of many channels, some that are spread over all are looked at, so that time and memory do not grow with them.

    Args:
        image: the file.
        most_rows: that fit into memory at a time.
        scale: the values that are 0 and 1.
        bounds: values beyond them are clipped; None for none.
    """
    stacked, height, width, _ = image.shape
    pages = np.unique(np.linspace(0, image.count * stacked - 1, MOST_PAGES).astype(int)).tolist()
    across = MOST_ACROSS if len(pages) == 1 else MOST_ACROSS - 1
    tall, wide = (whole_patches(min(side, WINDOW_PX)) for side in (min(height, most_rows), width))
    count = len(image.colours)
    seen = np.unique(np.linspace(0, count - 1, min(count, MOST_CHANNELS)).astype(int)).tolist()
    channels = [image.colours[number] for number in seen]
    found = []
    for page in pages:
        group, number = divmod(page, stacked)
        for top in starts(height, tall, across):
            band = image.read(group, top, top + tall)[number][..., channels]
            windows = np.stack([band[:, left : left + wide] for left in starts(width, wide, across)])
            own = scale.part((group, number)).part((..., seen))
            found.append(own.to_net(windows if bounds is None else windows.clip(*bounds)))
    joined = torch.cat(found).contiguous()
    return joined.reshape(len(pages), -1, *joined.shape[1:])


def starts(side: int, window: int, most: int) -> list[int]:
    """Return where windows begin that are spread over a side, px."""
    count = min(most, math.ceil(side / window))
    return np.linspace(0, side - window, count).round().astype(int).tolist()  # type: ignore[no-any-return]  # ints


@dataclass
class Treatment:
    """What was found in a file, and how it is denoised.

    Args:
        channels: of the file that were looked at.
        scale: the values that are 0 and 1.
        noise: what one look tells.
        spacing: at which the noise is independent; None where there is nothing to denoise.
        quality: of the general denoiser; None unless the noise is independent and of one strength.
        denoiser: None leaves the pixels as they are.
    """

    channels: int
    scale: Scale
    noise: ImageNoise
    spacing: NoiseSpacing | None = None
    quality: SingleNoise | None = None
    denoiser: Denoiser | None = None
    adapted: bool = False
    gain_db: float = 0.0  # of the denoiser over the general one, by SURE
    shared: int = 1  # files that the net was adapted to
    minutes: float = 0.0
    measured: Tensor = field(default_factory=lambda: torch.empty(0))  # windows that hold independent noise

    @property
    def is_trusted(self) -> bool:
        """Whether the noise is known, and the PSNR can be estimated."""
        return self.quality is not None and self.quality.doubt is None

    def planes(self) -> list[tuple[Tensor, Tensor]]:
        """Return what a net can be adapted to: images and the variance of their noise, (C, h, w) or (1, h, w) each."""
        assert self.denoiser is not None and self.quality is not None
        level = self.denoiser.with_passes(Passes()).estimate(self.measured)
        variance = torch.from_numpy(self.quality.variance.at(level.numpy()))
        pairs = list(zip(self.measured, variance, strict=True))
        if self.denoiser.splits(self.channels):
            return [(image[c : c + 1], var[c : c + 1]) for image, var in pairs for c in range(len(image))]
        return pairs

    def score(self, denoiser: Denoiser) -> float:
        """Return SURE of a denoiser as PSNR, dB, without the mean over flips and rotations, to save time."""
        assert self.quality is not None
        once = denoiser.with_passes(Passes())
        return sure_db(once.estimate, self.measured, self.quality.variance)

    def psnr_before_db(self) -> float | None:
        """Estimate the PSNR of the noisy image, dB; None where the noise is not known."""
        if not self.is_trusted or self.quality is None:
            return None
        return as_db(float(self.quality.variance.at(self.measured.numpy()).mean(dtype=np.float64)))

    def psnr_after_db(self) -> tuple[float, float] | None:
        """Estimate the PSNR of the denoised image and its error, dB; None where the noise is not known."""
        if not self.is_trusted or self.quality is None:
            return None
        spread = abs(self.quality.check_db - self.quality.psnr_db)
        return self.quality.psnr_db + self.gain_db, max(spread, LEAST_ERROR_DB)

    def facts(self) -> dict[str, Any]:
        """Return what was found and done, for the record."""
        before, after = self.psnr_before_db(), self.psnr_after_db()
        passes = self.denoiser.passes if self.denoiser else None
        return {
            "kind": self.noise.kind if self.spacing is None else "independent" if passes_once(passes) else "correlated",
            "noise_sd": rounded(self.sd()),
            "correlation": [round(rho, 3) for rho in self.spacing.correlation] if self.spacing else None,
            "saturated": rounded(self.noise.saturated),
            "spacings": list(passes.spacings) if passes else None,
            "turns": passes.turns if passes else None,
            "adapted_minutes": self.minutes if self.adapted else 0,
            "psnr_noisy_db": rounded(before),
            "psnr_db": rounded(after and after[0]),
            "psnr_error_db": rounded(after and after[1]),
            "why_no_psnr": None if after else self.why_declined(),
        }

    def sd(self) -> float | None:
        """Return the standard deviation of the noise, in values of the file; None where its images differ much."""
        if self.spacing is None or self.scale.gain is not None:
            return None
        if self.quality is not None:
            level = self.measured.numpy()
            return self.scale.peak * math.sqrt(float(self.quality.variance.at(level).mean(dtype=np.float64)))
        return self.scale.peak * self.spacing.sd

    def why_declined(self) -> str:
        """Return why there is no estimate of the PSNR."""
        if self.spacing is None:
            return "nothing was denoised"
        if self.scale.gain is not None:
            return "the file has images or channels that are much darker than others"
        if self.quality is None:
            return "the noise is correlated"
        return DOUBTS[self.quality.doubt or "unlike"]

    def lines(self) -> list[str]:
        """Return what was found, what was done, and how good the result may be: a line each."""
        return [line for line in (self.noise_line(), self.method_line(), self.quality_line()) if line]

    def noise_line(self) -> str:
        low, high = (self.scale.offset + self.scale.peak * value for value in (self.noise.low, self.noise.high))
        values = f"values {low:.5g} to {high:.5g}"
        if self.spacing is None:
            text = {"constant": f"every value is {high:.5g}", "small": f"fewer than {MIN_SIDE_PX} px a side"}.get(
                self.noise.kind,
                f"hardly any that can be told from texture ({values}); if you see noise, add --spacing 1, "
                "or --spacing 2 for a camera's JPEG",
            )
        else:
            rho = ", ".join(f"{value:.2f}" for value in self.spacing.correlation)
            doubted = self.quality is not None and self.quality.doubt == "correlated"
            form = "correlated" if self.spacing.spacing > 1 else "taken for independent" if doubted else "independent"
            sd = self.sd()
            strength = "of several strengths" if sd is None else f"sd {sd:.3g}"
            text = f"{strength} ({values}), {form} ({rho} at 1, 2, 3 px)"
        if self.noise.saturated:
            text += (
                f"; {100 * self.noise.saturated:.0f} % of the values are {high:.5g} (saturated), what they hid is lost"
            )
        return f"noise: {text}"

    def method_line(self) -> str:
        if self.denoiser is None:
            return "method: none, the image is passed through"
        passes = self.denoiser.passes
        if self.spacing and self.spacing.spacing > 1:
            spacings = " and ".join(map(str, passes.spacings))
            return f"method: general, on sub-images of pixels {spacings} px apart, then once more on their mean"
        files = f"{self.shared} files of one kind" if self.shared > 1 else "this file"
        net = f"general, adapted to {files} for {self.minutes:g} min" if self.adapted else "general"
        return f"method: {net}" + (f", mean of {passes.turns} flips and rotations" if passes.turns > 1 else "")

    def quality_line(self) -> str | None:
        if self.denoiser is None:
            return None
        before, after = self.psnr_before_db(), self.psnr_after_db()
        if after is None or before is None:
            return f"PSNR: not estimated ({self.why_declined()})"
        peak = f"PSNR (peak {self.scale.peak:g})"
        return f"{peak}: about {before:.1f} dB before, {after[0]:.1f} ± {after[1]:.1f} dB after"


def passes_once(passes: Passes | None) -> bool:
    return passes is None or passes.spacings == (1,)


def rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.4g}")


def choose_treatment(
    general: Denoiser, windows: Tensor, scale: Scale, pixels: int, *, kept: int, spacing: int | None = None
) -> Treatment:
    """Look at windows of a file, and choose how to denoise it, without adaptation.

    Args:
        general: the denoiser of independent noise.
        windows: (pages, N, C, h, w) float32 in units of the range.
        scale: the values that are 0 and 1.
        pixels: of the file.
        kept: at most so many windows stay in memory, for adaptation.
        spacing: at which the noise is known to be independent, px; None measures it.
    """
    pages, windows = len(windows), windows.flatten(0, 1)
    noise = find_noise(torch.cat(list(windows), -1).numpy())
    if min(windows.shape[2:]) < MIN_SIDE_PX and noise.kind != "constant":
        noise = noise._replace(kind="small")
    treatment = Treatment(windows.shape[1], scale, noise)
    if noise.kind in ("small", "constant"):
        return treatment

    def denoise_at(images: np.ndarray, spacing: int) -> np.ndarray:
        return general.with_passes(Passes((spacing,))).estimate(torch.from_numpy(images)).numpy()

    found = find_spacing(windows.numpy(), denoise_at)
    if spacing is not None:
        sd = removed_by(general.with_passes(PASSES[spacing]), windows, pages).sd if spacing > 1 else found.sd
        found = found._replace(spacing=spacing, sd=sd)
    else:
        alone = removed_by(general, windows, pages)
        found = true_spacing(general, windows, pages, noise, found, alone)
        if found.spacing == 1 and not alone.is_noise:
            treatment.noise = noise._replace(kind="clean")
            return treatment
    if found.spacing > 1:
        treatment.spacing, treatment.denoiser = found, general.with_passes(PASSES[found.spacing])
        return treatment
    turns = next((turns for most, turns in TURNS if pixels <= most), 1)
    treatment.spacing, treatment.denoiser = found, general.with_passes(Passes(turns=turns))
    if scale.gain is not None:
        return treatment
    noisy = [window for window in windows if find_noise(window.numpy()).kind == "independent"]
    treatment.measured = torch.stack(noisy) if noisy else windows
    treatment.quality = SingleNoise.measure(general.estimate, treatment.measured)
    treatment.measured = treatment.measured[:kept].clone()
    return treatment


def true_spacing(
    general: Denoiser, windows: Tensor, pages: int, noise: ImageNoise, found: NoiseSpacing, alone: Removed
) -> NoiseSpacing:
    """Return the spacing that was found, or less where it is due to texture, which looks like noise at a spacing.

    ``alone`` is what the denoiser removes without spacing: a correlated part of a camera's noise, little of noise that
    is independent at 3 px only, and next to nothing of texture.
    """
    if found.spacing > 2 and noise.kind != "clean":
        removed = removed_by(general.with_passes(PASSES[found.spacing]), windows, pages)
        if removed.is_even and alone.usual <= MOST_SHARE * removed.usual:
            return found._replace(sd=removed.sd)
    if alone.is_correlated:
        removed = removed_by(general.with_passes(PASSES[2]), windows, pages)
        if removed.is_even and removed.usual > LEAST_CORRELATED:
            return found._replace(spacing=2, sd=removed.sd)
    return found._replace(spacing=1)


def removed_by(denoiser: Denoiser, windows: Tensor, pages: int) -> Removed:
    """Measure what a denoiser removes from windows of some pages, (N, C, h, w)."""
    return measure_removed(windows.numpy(), denoiser.estimate(windows).numpy(), pages)


def kinds(treatments: Sequence[Treatment]) -> list[list[Treatment]]:
    """Return the treatments whose noise is known, in groups of the same channels, range and about the same noise."""
    groups: dict[tuple[int, float, int], list[Treatment]] = {}
    for treatment in treatments:
        if treatment.is_trusted:
            strength = round(2 * math.log2(max(treatment.sd() or 0.0, 1e-12)))
            groups.setdefault((treatment.channels, treatment.scale.peak, strength), []).append(treatment)
    return list(groups.values())


def use_adapted(treatment: Treatment, module: Any, minutes: float, shared: int) -> None:
    """Take an adapted net where SURE finds it better than the general one."""
    general = treatment.denoiser
    assert general is not None
    adapted = general.with_passes(general.passes, module)
    gain_db = treatment.score(adapted) - treatment.score(general)
    if gain_db > 0:
        treatment.denoiser, treatment.adapted, treatment.gain_db = adapted, True, gain_db
        treatment.minutes, treatment.shared = minutes, shared
