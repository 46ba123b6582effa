"""The benchmarks' own sums: what they count and how they pair, on small nets and runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import compose_config
from torch import nn

from benchmarks import bf16, cost
from benchmarks.measuring import ratio
from benchmarks.time_to_quality import UntilTarget
from benchmarks.turns import Convolutions, InTurns, train_in_temporary_folder
from benchmarks.two_trainings import train_at_once
from n2n_lightning import Denoiser


def test_a_pixels_share_is_as_by_hand(monkeypatch: pytest.MonkeyPatch):
    """Two 3x3 convolutions of 2 to 4 to 2 maps and a ReLU between them, which keeps its output."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))

    class Module(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

    monkeypatch.setattr(cost, "module_of", lambda model: Module())
    row = cost.count("any")
    assert row["params"] == 4 * (27 + 1) + 2 * (36 + 1)
    assert row["kmac_per_px"] == pytest.approx((4 * 27 + 2 * 36) / 1000)
    assert row["conv_values_per_px"] == (3 + 4) + (4 + 2)
    assert row["kept_bytes_per_px"] == 4 * (3 + 4)  # the image and the ReLU's output
    assert cost.memory_mb(row, 2**20) == pytest.approx(28 + 16 * row["params"] / 2**20)


def test_ratios_are_of_neighbours():
    found = ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])
    assert found["ratio"] == 3 and found["quartiles"] == [2, 4]


def test_convolutions_alone_are_those_of_the_net():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.ConvTranspose2d(4, 2, 2, stride=2))
    alone = Convolutions(net, torch.rand(2, 3, 5, 6))
    shapes = [(features.shape, gradient.shape, features.requires_grad) for _, features, gradient in alone.calls]
    assert shapes == [((2, 3, 5, 6), (2, 4, 5, 6), False), ((2, 4, 5, 6), (2, 2, 10, 12), True)]
    assert alone.seconds() > 0
    assert all(parameter.grad is None for parameter in net.parameters())


def test_loops_take_turns_and_epochs_add_up(course_data: str):
    turns = InTurns(convolutions=True)
    overrides = ("model=convtrans_relu", "data=ee559", f"data.root={course_data}", "data.batch_size=32")
    train_in_temporary_folder(compose_config(*overrides, "trainer.max_epochs=3", "trainer.accelerator=cpu"), turns)
    assert turns.images == 96
    # 3 steps an epoch: after a bare one, after the convolutions, and the last, which validation follows
    assert len(turns.over_bare) == len(turns.over_convolutions) == 3
    assert min(min(pair) for pair in (*turns.over_bare, *turns.over_convolutions)) > 0
    assert len(turns.epochs) == 2 and all(ours > 0 and bare > 0 for ours, bare in turns.epochs)


@pytest.mark.parametrize(("target", "epochs"), [(0.0, 1), (99.0, 3)])
def test_the_clock_stops_at_the_validation_that_reaches_the_target(course_data: str, target: float, epochs: int):
    until = UntilTarget(target)
    overrides = ("model=convtrans_relu", "data=ee559", f"data.root={course_data}", "data.batch_size=32")
    train_in_temporary_folder(compose_config(*overrides, "trainer.max_epochs=3", "trainer.accelerator=cpu"), until)
    assert len(until.validations) == epochs
    seconds = [seconds for _, seconds, _ in until.validations]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_bf16_is_scored_on_the_middle_of_each_image(tmp_path: Path):
    image = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    Image.fromarray(image).save(tmp_path / "a.png")
    Image.fromarray(image[:20]).save(tmp_path / "b.png")
    whole, low = bf16.middles(tmp_path, 32)
    np.testing.assert_array_equal((whole * 255).round().numpy()[0], image[4:36, 14:46].transpose(2, 0, 1))
    assert low.shape == (1, 3, 20, 32)
    denoiser = Denoiser.load("convtrans_relu")
    scores = bf16.psnrs(denoiser, [whole, whole], 25.0)
    assert scores == bf16.psnrs(denoiser, [whole, whole], 25.0)
    assert scores[0] != scores[1], "each image has noise of its own"


@pytest.mark.slow
def test_trainings_at_once_have_a_speed_each_and_one_that_fails_is_told(course_data: Path):
    words = ["model=convtrans_relu", "data=ee559", f"data.root={course_data}", "trainer.max_epochs=2"]
    speeds = train_at_once(2, [*words, "data.batch_size=32", "trainer.accelerator=cpu"], OMP_NUM_THREADS="1")
    assert len(speeds) == 2 and min(speeds) > 0
    with pytest.raises(RuntimeError, match="a training failed"):
        train_at_once(1, ["data.root=nowhere"])
