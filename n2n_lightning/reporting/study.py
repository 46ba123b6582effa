"""What the course report says of its five models: titles, colours, optimizers, scores and claims."""

from __future__ import annotations

from typing import NamedTuple

FLAT_SHARE = 0.10  # a loss is flat once at most this share of its whole fall is left


class StudyModel(NamedTuple):
    """One of the course report's models."""

    title: str
    colour: str
    optimizer: tuple[str, float]  # name and learning rate that the course report trained it with
    psnr_db: float  # Table 2 of the course report, measured on the course's data


# Okabe and Ito's colours, which colour-blind readers can tell apart. The blue is a little lighter than theirs, so that
# it can be seen on dark paper too.
STUDY_MODELS = {
    "unet": StudyModel("U-Net", "#1A80C2", ("adam", 0.001), 25.55),
    "nn_relu": StudyModel("NN + ReLU", "#D55E00", ("sgd", 0.1), 23.79),
    "nn_sigmoid": StudyModel("NN + Sigmoid", "#E69F00", ("sgd", 0.1), 23.29),
    "convtrans_relu": StudyModel("Convtrans + ReLU", "#009E73", ("sgd", 0.1), 24.05),
    "convtrans_sigmoid": StudyModel("Convtrans + Sigmoid", "#CC79A7", ("sgd", 0.1), 23.44),
}
SEQUENTIAL_MODELS = [model for model in STUDY_MODELS if model != "unet"]
# titles and colours of models that are not the course report's
OTHER_TITLES = {
    **{"nafnet": "NAFNet", "nafnet32": "NAFNet, width 32", "nafnet8": "NAFNet, width 8", "dncnn": "DnCNN"},
    **{"drunet": "DRUNet", "red30": "RED30", "n2v2": "N2V2 U-Net", "zs_n2n": "ZS-N2N"},
}
OTHER_COLOURS = ["#56B4E9", "#8E6BC4", "#A8842C", "#8A9199", "#C2588F", "#4F9483"]


def model_title(model: str) -> str:
    """Return a model's name for readers; an unknown model keeps its own name."""
    return STUDY_MODELS[model].title if model in STUDY_MODELS else OTHER_TITLES.get(model, model)


class PsnrClaim(NamedTuple):
    """A sentence of the course report that holds if some models have a higher validation PSNR than others."""

    statement: str
    rule: str
    pairs: list[tuple[str, str, str]]  # what is compared, the model that should be higher, and the lower one
    every_epoch: bool  # compare at every epoch, and not at the best epoch of each


class FlatLossClaim(NamedTuple):
    """A sentence of the course report that holds if a loss of every model is flat after an epoch."""

    name: str
    column: str  # of metrics.csv
    epoch: int

    @property
    def statement(self) -> str:
        return f"The {self.name} loss is flat after about epoch {self.epoch}."

    @property
    def rule(self) -> str:
        return (
            f"After epoch {self.epoch} the loss changes by at most {FLAT_SHARE:.0%} of its fall from the first epoch "
            f"to the last. Only runs of at least {2 * self.epoch} epochs are judged."
        )


STUDY_CLAIMS = (
    PsnrClaim(
        "The U-Net is ahead of every sequential model from the first epoch on.",
        "At every epoch that both have, the U-Net's validation PSNR is above the sequential model's.",
        [(model_title(model), "unet", model) for model in SEQUENTIAL_MODELS],
        every_epoch=True,
    ),
    FlatLossClaim("training", "train/loss", 8),
    FlatLossClaim("validation", "val/loss", 5),
    PsnrClaim(
        "An output ReLU does better than a Sigmoid, with either upsampling.",
        "With either upsampling, the best validation PSNR with ReLU is above the one with Sigmoid.",
        [("NN", "nn_relu", "nn_sigmoid"), ("Convtrans", "convtrans_relu", "convtrans_sigmoid")],
        every_epoch=False,
    ),
    PsnrClaim(
        "Convtrans + ReLU is the best of the sequential models.",
        "Its best validation PSNR is above that of each of the other three.",
        [(f"over {model_title(m)}", "convtrans_relu", m) for m in SEQUENTIAL_MODELS if m != "convtrans_relu"],
        every_epoch=False,
    ),
)
