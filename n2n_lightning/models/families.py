"""One LightningModule for each architecture. Its constructor takes plain values, so that a checkpoint can hold them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from n2n_lightning.models.module import DenoiserModule, Spec
from n2n_lightning.nets.dncnn import DnCnn
from n2n_lightning.nets.drunet import DruNet
from n2n_lightning.nets.n2v2 import N2V2Net
from n2n_lightning.nets.nafnet import NafNet
from n2n_lightning.nets.red30 import Red30
from n2n_lightning.nets.sequential import Sequential
from n2n_lightning.nets.unet import UNet
from n2n_lightning.nets.zs_n2n import ZsN2nNet


class UNetDenoiser(DenoiserModule):
    """The Noise2Noise U-Net (``nets.unet.UNet``)."""

    family = "unet"

    def __init__(self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None = None, channels: int = 3) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = UNet(channels)


class SequentialDenoiser(DenoiserModule):
    """The study's simple sequential nets (``nets.sequential.Sequential``)."""

    family = "sequential"
    gives_negatives = False  # both activations end at 0

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


class NafNetDenoiser(DenoiserModule):
    """A U-shaped net of NAFNet blocks (``nets.nafnet.NafNet``)."""

    family = "nafnet"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        width: int = 24,
        encoder: Sequence[int] = (1, 1, 1),
        middle: int = 1,
        decoder: Sequence[int] = (1, 1, 1),
        attention: bool = True,
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = NafNet(channels, width=width, encoder=encoder, middle=middle, decoder=decoder, attention=attention)


class DnCnnDenoiser(DenoiserModule):
    """DnCNN (``nets.dncnn.DnCnn``)."""

    family = "dncnn"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        layers: int = 20,
        width: int = 64,
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = DnCnn(channels, layers=layers, width=width)


class DruNetDenoiser(DenoiserModule):
    """A U-Net of residual blocks (``nets.drunet.DruNet``)."""

    family = "drunet"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        width: int = 16,
        blocks: Sequence[int] = (2,),
        middle: int = 1,
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = DruNet(channels, width=width, blocks=blocks, middle=middle)


class Red30Denoiser(DenoiserModule):
    """RED30 (``nets.red30.Red30``)."""

    family = "red30"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        layers: int = 30,
        width: int = 128,
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = Red30(channels, layers=layers, width=width)


class N2V2Denoiser(DenoiserModule):
    """The U-Net of N2V2 (``nets.n2v2.N2V2Net``)."""

    family = "n2v2"

    def __init__(
        self,
        *,
        optimizer: Spec,
        loss: Spec,
        scheduler: Spec | None = None,
        channels: int = 3,
        width: int = 32,
        depth: int = 2,
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = N2V2Net(channels, width=width, depth=depth)


class ZsN2nDenoiser(DenoiserModule):
    """The small net of Zero-Shot Noise2Noise (``nets.zs_n2n.ZsN2nNet``)."""

    family = "zs_n2n"

    def __init__(
        self, *, optimizer: Spec, loss: Spec, scheduler: Spec | None = None, channels: int = 3, width: int = 48
    ) -> None:
        super().__init__(optimizer=optimizer, loss=loss, scheduler=scheduler)
        self.net = ZsN2nNet(channels, width=width)


FAMILIES: dict[str, type[DenoiserModule]] = {
    family.family: family
    for family in (
        *(UNetDenoiser, SequentialDenoiser, NafNetDenoiser, DnCnnDenoiser, Red30Denoiser),
        *(DruNetDenoiser, N2V2Denoiser, ZsN2nDenoiser),
    )
}
