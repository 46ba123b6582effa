"""Whether the training step of a run becomes a CUDA graph (``graph=``), and what stands against it."""

from __future__ import annotations

import inspect

import pytorch_lightning as pl
import torch

from n2n_lightning.models.module import OPTIMIZERS
from n2n_lightning.self_supervised.choices import is_annealed
from n2n_lightning.system.plugin_loading import plugins_of
from n2n_lightning.training.callback_choices import build_chosen
from n2n_lightning.training.graph_step import CudaRecorder, Recorder
from n2n_lightning.training.settings import RunSettings
from n2n_lightning.training.trainer_settings import FP16

# hooks of callbacks that Lightning calls within a step
WITHIN_STEP = ("on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")


def obstacles(settings: RunSettings) -> list[str]:
    """Return what keeps the step on a CUDA device from being captured, one reason each."""
    trainer, data, loss = settings.trainer, settings.data, str(settings.loss.name)
    found = {
        "compile=... makes graphs of its own": bool(settings.compile),
        "data=single draws within the step": data.name == "single",
        f"loss={loss} changes from step to step": data.name != "single" and is_annealed(loss),
        "trainer.accumulate_grad_batches makes steps of two kinds": trainer.get("accumulate_grad_batches", 1) > 1,
        "trainer=ddp exchanges gradients within the step": trainer.get("strategy", "auto") != "auto",
        "trainer.precision=16-mixed reads the gradients within the step": trainer.get("precision") in FP16,
        "trainer.detect_anomaly reads values within the step": bool(trainer.get("detect_anomaly")),
    }
    reasons = [reason for reason, stands in found.items() if stands]
    name = str(settings.optimizer.name)
    if "fused" not in inspect.signature(OPTIMIZERS[name]).parameters or settings.optimizer.values.get("differentiable"):
        reasons.append(f"optimizer={name} has no fused kernel here")
    for callback in build_chosen(settings.callbacks):
        reasons += [
            f"the callback {type(callback).__name__} runs within the step ({hook})"
            for hook in WITHIN_STEP
            if getattr(type(callback), hook) is not getattr(pl.Callback, hook)
        ]
    return reasons


def trains_on_cuda(settings: RunSettings) -> bool:
    return settings.trainer.get("accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()


def graph_faults(settings: RunSettings) -> list[str]:
    """Return the faults of ``graph=true`` in settings that are right otherwise."""
    if settings.graph is not True:
        return []
    reasons = [*obstacles(settings), *([] if trains_on_cuda(settings) else ["there is no CUDA device to train on"])]
    return [f"graph=true is not possible: {'; '.join(reasons)}; set graph=false"] if reasons else []


def reason_for_eager(settings: RunSettings) -> str | None:
    """Return why ``graph=auto`` trains without a graph on a CUDA device; None if it does not, or trains elsewhere."""
    if settings.graph != "auto" or not trains_on_cuda(settings):
        return None
    used = plugins_of({key: value for key, value in settings.as_config().items() if key in ("model", "loss", "data")})
    return "; ".join([*obstacles(settings), *(f"{choice} is a plugin's" for choice in used)]) or None


def graph_recorder(settings: RunSettings) -> Recorder | None:
    """Return what captures the steps of a run, if its settings ask for it and nothing stands against."""
    if not settings.graph or not trains_on_cuda(settings) or reason_for_eager(settings):
        return None
    return CudaRecorder()
