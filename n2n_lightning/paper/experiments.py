"""The experiments of Lehtinen et al. 2018 (arXiv 1803.04189), with the paper's scores and claims."""

from __future__ import annotations

from dataclasses import dataclass

BENCHMARKS = ("bsds300", "kodak24", "set14")
TEST_NOISES = {  # each noise, with the parameter and the strength of the paper's tests
    "gaussian": ("sigma", 25.0),
    "brown": ("sigma", 25.0),
    "poisson": ("lam", 30.0),
    "bernoulli": ("p", 0.5),
    "text": ("coverage", 0.25),
    "impulse": ("p", 0.7),
}
ExperimentKey = tuple[str, str, str, str]  # noise, loss, targets, draws


@dataclass(frozen=True)
class Experiment:
    """A training run of the paper, or one to compare it with."""

    noise: str  # that it is trained and tested with
    loss: str
    targets: str  # "noisy" or "clean"
    draws: str  # "fresh" noise in each epoch, or "fixed" noise
    paper: tuple[float, ...] = ()  # PSNR in dB on each benchmark, in their order; empty if the paper has no such run
    one_image: bool = False  # the paper gives the PSNR of only one image, from Kodak's

    @property
    def title(self) -> str:
        """What distinguishes it from other experiments with the same noise."""
        return f"{self.loss}, {self.targets} targets" + ", fixed" * (self.draws == "fixed")

    @property
    def key(self) -> ExperimentKey:
        return self.noise, self.loss, self.targets, self.draws

    @property
    def benchmarks(self) -> tuple[str, ...]:
        return ("kodak24",) if self.one_image else BENCHMARKS

    def paper_db(self, benchmark: str) -> float | None:
        return dict(zip(self.benchmarks, self.paper, strict=False)).get(benchmark)


# Scores from Table 1 of the paper, and from its section 3 for text and impulses. Those of Gaussian and Poisson noise on
# BSD300 and Kodak are from the README of the official code, since the Gaussian row of Table 1 is not the U-Net's, but
# RED30's.
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
    """The claim that one run's PSNR on a benchmark is above another's, by at least ``least_db``."""

    text: str
    benchmark: str
    run: ExperimentKey
    other: ExperimentKey
    least_db: float


def paper_claims() -> list[PaperClaim]:
    """Return the paper's claims: noisy targets are as good as clean ones, and some noises need a certain loss."""
    claims = []
    for noise in ("gaussian", "brown", "poisson", "bernoulli"):
        for draws in ("fresh", "fixed") if noise == "gaussian" else ("fresh",):
            run, other = ((noise, "l2", targets, draws) for targets in ("noisy", "clean"))
            text = f"{noise}, {draws} draws: noisy targets over clean ones"
            claims.append(PaperClaim(text, "bsds300", run, other, -0.1))
    for noise, loss, other_loss, least_db in (
        ("impulse", "l0", "l1", 5.0),
        ("impulse", "l1", "l2", 0.0),
        ("text", "l1", "l2", 4.0),
    ):
        run, other = ((noise, name, "noisy", "fresh") for name in (loss, other_loss))
        claims.append(PaperClaim(f"{noise}: {loss} over {other_loss}", "kodak24", run, other, least_db))
    return claims
