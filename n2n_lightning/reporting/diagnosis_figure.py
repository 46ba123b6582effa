"""The doctor's picture: a frame and its noise, the noise by brightness, and the level and place of each frame."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from n2n_lightning.diagnosis import Findings, SceneMeasures
from n2n_lightning.reporting.figures import png_bytes

SHOWN_SCENES = 4


def draw_findings(findings: Findings) -> bytes:
    """Draw a row of two pictures and three charts for each of the first scenes; return a PNG file."""
    scenes = findings.scenes[:SHOWN_SCENES]
    figure = Figure(figsize=(16, 3.2 * len(scenes)), layout="constrained")
    grid = figure.subplots(len(scenes), 5, squeeze=False)
    for scene, (frame, residual, noise, levels, places) in zip(scenes, grid, strict=True):
        draw_picture(frame, scene.picture, scene.name[-32:])
        draw_picture(residual, scene.residual, "its noise")
        draw_noise(noise, scene)
        draw_levels(levels, scene)
        draw_places(places, scene)
    return png_bytes(figure)


def draw_picture(axes: Axes, image: np.ndarray | None, title: str) -> None:
    """Draw an image (H, W), from black at its 1st to white at its 99th percentile."""
    axes.set(title=title, xticks=[], yticks=[])
    if image is None:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    low, high = np.percentile(image, (1, 99))
    axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")


def draw_noise(axes: Axes, scene: SceneMeasures) -> None:
    """Draw the noise variance of classes of brightness, and the fitted line."""
    axes.set(title="noise by brightness", xlabel="value as stored", ylabel="variance")
    noise = scene.noise
    if noise is None or not noise.level:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    level = np.array(noise.level)
    axes.plot(level, noise.variance, "o", ms=4)
    if noise.gain is not None and noise.intercept is not None:
        axes.plot(level, noise.intercept + noise.gain * level, "-", lw=1, label=f"{noise.gain:.3g} a value")
        axes.legend(frameon=False)


def draw_levels(axes: Axes, scene: SceneMeasures) -> None:
    """Draw the mean of each frame as it is stored; frames are counted from 1, as pages are."""
    axes.set(title="mean of each frame", xlabel="frame", ylabel="value")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.plot([index + 1 for index in scene.indices], [values.mean for values in scene.values], "o-", ms=4, lw=1)


def draw_places(axes: Axes, scene: SceneMeasures) -> None:
    """Draw the place of each frame against the first, px."""
    axes.set(title="place of each frame (px)", xlabel="columns", ylabel="rows")
    if scene.shifts is None or scene.shifts.place is None:
        axes.text(0.5, 0.5, "not measured", ha="center", transform=axes.transAxes)
        return
    rows, columns = np.array(scene.shifts.place).T
    axes.plot(columns, rows, "o-", ms=4, lw=1)
    reach = max(1.0, 1.2 * float(np.abs([rows, columns]).max()))
    axes.set(xlim=(-reach, reach), ylim=(reach, -reach), aspect="equal")
