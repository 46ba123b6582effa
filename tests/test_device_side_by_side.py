"""``benchmarks.device_side_by_side``: nets that are trained as one learn what each learns alone."""

from __future__ import annotations

import copy

import pytest
import torch
from small_runs import compose_settings

from benchmarks.device_side_by_side import grouped, in_turn, on_streams
from benchmarks.device_steps import BareStep
from n2n_lightning.data.pairs import TensorPairs
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.training.build import build_module

SEEDS = 3


def modules(model: str) -> list[DenoiserModule]:
    """Return a net with other initial weights for each seed."""
    torch.manual_seed(0)
    return [build_module(compose_settings(f"model={model}", "init_from=null"), 3) for _ in range(SEEDS)]


@pytest.mark.parametrize("model", ["convtrans_relu", "nn_sigmoid"])
def test_seeds_as_one_grouped_net_learn_as_each_alone(model: str):
    alone = modules(model)
    images = torch.randint(0, 256, (2, 8, 3 * SEEDS, 12, 12), dtype=torch.uint8)  # other images for each seed

    def steps_of(module: DenoiserModule, channels: slice) -> BareStep:
        pairs = TensorPairs(images[0][:, channels], images[1][:, channels])
        step = BareStep(copy.deepcopy(module), pairs, len(pairs), is_bf16=False)  # all in one batch: in any order
        for _ in range(3):
            step()
        return step

    before = grouped(alone).net.conv1.weight.clone()
    together = steps_of(grouped(alone), slice(None)).net
    assert (together.conv1.weight - before).abs().max() > 1e-5
    for seed, module in enumerate(alone):
        trained = steps_of(module, slice(3 * seed, 3 * seed + 3)).net
        for name, values in trained.named_parameters():
            part = together.get_parameter(name)[seed * len(values) : (seed + 1) * len(values)]
            torch.testing.assert_close(part, values, rtol=1e-4, atol=1e-6)


@pytest.mark.cuda
def test_nets_on_streams_are_timed():
    nets = modules("convtrans_relu")
    assert isinstance(on_streams(nets, 2, 4), int) and in_turn(nets, 2, 4) > 0
