"""One LightningModule per architecture family: a constructor of plain values, so that a checkpoint describes itself."""

from __future__ import annotations

from typing import Literal

from n2n_lightning.module import DenoiserModule, Spec
from n2n_lightning.nets.sequential import Sequential
from n2n_lightning.nets.unet import UNet


class UNetDenoiser(DenoiserModule):
    """The Noise2Noise U-Net (``nets.unet.UNet``)."""

    family = "unet"

    def __init__(self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None = None, channels: int = 3) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = UNet(channels)


class SequentialDenoiser(DenoiserModule):
    """The study's simple sequential nets (``nets.sequential.Sequential``)."""

    family = "sequential"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        upsampling: Literal["nearest", "convtrans"] = "convtrans",
        activation: Literal["relu", "sigmoid"] = "relu",
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = Sequential(channels, upsampling=upsampling, activation=activation)


FAMILIES: dict[str, type[DenoiserModule]] = {family.family: family for family in (UNetDenoiser, SequentialDenoiser)}
