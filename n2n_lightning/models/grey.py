"""Grey images through a net for colours: each goes through it as an image whose channels are equal."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from n2n_lightning.models.checkpoint import read_checkpoint
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.models.trained import has_learnt_grey


class GreyNet(nn.Module):
    """Denoise grey images by a net for images of C channels, and take the mean over these."""

    def __init__(self, net: nn.Module, channels: int) -> None:
        super().__init__()
        self.net, self.channels = net, channels

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, H, W) float32 -> same shape."""
        estimate: Tensor = self.net(images.expand(-1, self.channels, -1, -1))
        return estimate.mean(1, keepdim=True)


def use_for_grey(module: DenoiserModule) -> None:
    """Let a module for colours denoise grey images instead, as ``predict`` does."""
    module.net = GreyNet(module.net, module.hparams["channels"])
    module.hparams["channels"] = 1


def knows_grey(checkpoint: Path) -> bool:
    """Return whether the net has learnt grey images too; what the checkpoint says wins over the run's record."""
    about = read_checkpoint(checkpoint)["n2n_lightning"]
    return bool(about.get("grey", has_learnt_grey(checkpoint)))
