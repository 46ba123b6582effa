"""Grey images through nets for colours, as ``predict`` and ``evaluate`` put them through."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import compose_settings, small

from n2n_lightning import Denoiser
from n2n_lightning.models.checkpoint import save_denoiser
from n2n_lightning.models.grey import knows_grey, use_for_grey
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.build import build_module


def module_of(model: str) -> DenoiserModule:
    return build_module(compose_settings(*small(model)), 3).eval()


@pytest.mark.parametrize("model", ["unet", "red30"])  # the weights of the latter cannot be folded for one channel
def test_a_module_for_grey_gives_what_predict_gives(model: str):
    module = module_of(model)
    images = torch.rand(2, 1, 24, 16, generator=torch.Generator().manual_seed(0))
    expected = Denoiser(module, per_channel=True).denoise(images, range=1.0)
    use_for_grey(module)
    with torch.inference_mode():
        torch.testing.assert_close(module(images), expected, atol=1e-5, rtol=1e-4)


def test_what_a_checkpoint_says_of_grey_wins_over_the_record_of_its_run(tmp_path: Path):
    path, module = tmp_path / "best.ckpt", module_of("convtrans_relu")
    for record, about, expected in (
        ("{}", {"grey": True}, True),
        ("{}", {}, False),
        ('{"data": {"augment": ["grey"]}}', {}, True),
        ('{"data": {"augment": ["grey"]}}', {"grey": False}, False),
    ):
        (tmp_path / "result.json").write_text(record)
        save_denoiser(module, path, **about)
        assert knows_grey(path) == Denoiser.load(path).has_learnt_grey == expected
