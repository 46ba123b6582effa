"""The runs of Lehtinen et al. 2018 (arXiv 1803.04189): what they scored there, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

BENCHMARKS = ("bsds300", "kodak24", "set14")
TESTED_WITH = {  # the strength of each noise that the paper scores with
    "gaussian": ("sigma", 25.0),
    "brown": ("sigma", 25.0),
    "poisson": ("lam", 30.0),
    "bernoulli": ("p", 0.5),
    "text": ("coverage", 0.25),
    "impulse": ("p", 0.7),
}
Key = tuple[str, str, str, str]


@dataclass(frozen=True)
class Experiment:
    """One training run of the paper, or its clean twin.

    Args:
        noise: of the experiment.
        loss: trained with.
        targets: "noisy" or "clean".
        draws: "fresh" or "fixed".
        paper: dB on each benchmark, in their order; none where the paper has no such run.
        one_image: the paper gives one image of Kodak's alone.
    """

    noise: str
    loss: str
    targets: str
    draws: str
    paper: tuple[float, ...] = ()
    one_image: bool = False

    @property
    def title(self) -> str:
        """What it differs in from others of its noise."""
        return f"{self.loss}, {self.targets} targets" + ", fixed" * (self.draws == "fixed")

    @property
    def key(self) -> Key:
        return self.noise, self.loss, self.targets, self.draws

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return ("kodak24",) if self.one_image else BENCHMARKS

    def paper_db(self, benchmark: str) -> float | None:
        return dict(zip(self.benchmarks, self.paper, strict=False)).get(benchmark)


# Table 1 of the paper, but for Gaussian and Poisson noise on BSD300 and Kodak the U-Net's figures in the README of the
# official code (the paper's Gaussian row is RED30's); section 3 for text and impulses
EXPERIMENTS = (
    Experiment("gaussian", "l2", "clean", "fresh", (31.01, 32.38, 31.31)),
    Experiment("gaussian", "l2", "noisy", "fresh", (31.02, 32.39, 31.28)),
    Experiment("gaussian", "l2", "clean", "fixed"),
    Experiment("gaussian", "l2", "noisy", "fixed"),
    Experiment("brown", "l2", "clean", "fresh"),
    Experiment("brown", "l2", "noisy", "fresh"),
    Experiment("poisson", "l2", "clean", "fresh", (30.27, 31.66, 30.07)),
    Experiment("poisson", "l2", "noisy", "fresh", (30.26, 31.66, 30.06)),
    Experiment("bernoulli", "l2", "clean", "fresh", (31.04, 33.01, 31.51)),
    Experiment("bernoulli", "l2", "noisy", "fresh", (31.16, 33.17, 31.72)),
    Experiment("text", "l1", "clean", "fresh", (35.82,), one_image=True),
    Experiment("text", "l1", "noisy", "fresh", (35.75,), one_image=True),
    Experiment("text", "l2", "noisy", "fresh", (26.89,), one_image=True),
    Experiment("impulse", "l0", "clean", "fresh", (28.86,), one_image=True),
    Experiment("impulse", "l0", "noisy", "fresh", (28.43,), one_image=True),
    Experiment("impulse", "l1", "noisy", "fresh", (16.36,), one_image=True),
    Experiment("impulse", "l2", "noisy", "fresh", (13.02,), one_image=True),
)


@dataclass(frozen=True)
class PaperClaim:
    """That one run scores at least so much above another on a benchmark."""

    text: str
    benchmark: str
    run: Key
    other: Key
    least_db: float


def claims() -> Sequence[PaperClaim]:
    """Noisy targets do as well as clean ones; and which loss it takes."""
    twins = (
        ("gaussian", "fresh"),
        ("gaussian", "fixed"),
        ("brown", "fresh"),
        ("poisson", "fresh"),
        ("bernoulli", "fresh"),
    )
    found = [
        PaperClaim(
            f"{noise}, {draws} draws: noisy targets over clean ones",
            "bsds300",
            (noise, "l2", "noisy", draws),
            (noise, "l2", "clean", draws),
            -0.1,
        )
        for noise, draws in twins
    ]
    for noise, loss, other, least_db in (
        ("impulse", "l0", "l1", 5.0),
        ("impulse", "l1", "l2", 0.0),
        ("text", "l1", "l2", 4.0),
    ):
        runs = [(noise, name, "noisy", "fresh") for name in (loss, other)]
        found.append(PaperClaim(f"{noise}: {loss} over {other}", "kodak24", runs[0], runs[1], least_db))
    return found
