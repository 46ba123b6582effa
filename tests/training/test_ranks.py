"""One run in several processes: the results are those of one process, and wrong settings are refused."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from conftest import Command
from noisy_files import ALL, source
from small_runs import compose_config, compose_settings, read_json, timeless_table, tiny_overrides, train_in, weights_of
from warm_processes import SECONDS, warm_context

from n2n_lightning import train
from n2n_lightning.data import datamodule
from n2n_lightning.data.batches import EpochBatches, Share, take_share
from n2n_lightning.data.pairs import NoisyPair
from n2n_lightning.data.single import SingleData
from n2n_lightning.metrics import WeightedMean
from n2n_lightning.models.module import DenoiserModule
from n2n_lightning.self_supervised.draws import draw
from n2n_lightning.system.lock import file_lock
from n2n_lightning.system.ranks import follows
from n2n_lightning.system.run_names import run_name
from n2n_lightning.train import LOCK
from n2n_lightning.training.checkpointing import RunCheckpoints
from n2n_lightning.training.rank_roles import follow
from n2n_lightning.training.ranks import RankPlan
from n2n_lightning.training.run import prepare_run
from n2n_lightning.training.single_noise import MeasuredNoise
from n2n_lightning.training.trainer_settings import trainer_faults

RECIPE = (
    *("model=convtrans_relu", "trainer.max_epochs=3", "data.augment=[flip,rotate,swap]", "data.batch_size=10"),
    *("data.val_batch_size=5", "ema=0.9", "scheduler=cosine", "trainer.gradient_clip_val=1", "init_from=null"),
)


def train_rank(rank: int, ranks: int, port: int, folder: Path, root: Path) -> None:
    """Train as one process of ``ranks`` that torchrun would have started, in float64."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    names = ("source", "target", "clean", "third")
    datamodule.scale_pair = lambda pair, peak: pair.map(lambda images: images.double() / peak, *names)
    DenoiserModule.forward = lambda self, noisy: self.net(noisy)  # type: ignore[method-assign]  # without float()
    overrides = RECIPE
    if ranks > 1:
        numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
        os.environ |= {name: str(number) for name, number in numbers.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
        overrides = (*RECIPE, "trainer=ddp", f"trainer.devices={ranks}")
    if rank == 0:
        train_in(folder, root, *overrides)
    else:
        follow(compose_config(*tiny_overrides(root), *overrides))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def train_with_ranks(ranks: int, folder: Path, root: Path) -> Path:
    """Train in so many processes; return the run's folder."""
    port = free_port()
    start = warm_context().Process
    processes = [start(target=train_rank, args=(rank, ranks, port, folder, root)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
    assert [process.exitcode for process in processes] == [0] * ranks
    return folder


@pytest.mark.slow
def test_two_and_three_processes_train_what_one_does(tmp_path: Path, course_data: Path):
    one = train_with_ranks(1, tmp_path / "one", course_data)
    for ranks in (2, 3):  # 96 images in batches of 10: the last has 6; 24 validation images
        several = train_with_ranks(ranks, tmp_path / str(ranks), course_data)
        for name, weight in weights_of(one / "checkpoints" / "last.ckpt").items():
            other = weights_of(several / "checkpoints" / "last.ckpt")[name]
            torch.testing.assert_close(other, weight, rtol=0, atol=1e-9 * float(weight.abs().max()))
        for row, expected in zip(timeless_table(several), timeless_table(one), strict=True):
            assert {key: float(value) for key, value in row.items()} == pytest.approx(
                {key: float(value) for key, value in expected.items()}, rel=1e-9
            )
        assert read_json(several / "result.json")["status"] == read_json(one / "result.json")["status"]


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shares_hold_each_image_once_and_their_losses_average_to_the_batch(length: int, ranks: int):
    images = torch.arange(1.0, length + 1).reshape(-1, 1, 1, 1)
    parts = [take_share(NoisyPair(images, images), Share(rank, ranks)) for rank in range(ranks)]
    counted = torch.cat([part.source[: part.counted] for part in parts])
    assert torch.equal(counted, images)
    mean = sum(part.weight * part.source.mean() for part in parts) / ranks
    torch.testing.assert_close(torch.as_tensor(mean), images.mean())


@pytest.mark.parametrize(("length", "size"), [(400, 100), (401, 100), (1, 100), (5, 1)])
def test_ranks_validate_each_image_once_in_equally_many_batches(length: int, size: int):
    keys = [
        list(EpochBatches(length, size, seed=0, shuffle=False, share=Share(rank, 3))) for rank in range(3)
    ]  # in the stored order, so that the gathered scores are in it too
    assert len({len(own) for own in keys}) == 1
    assert torch.cat([key.indices for own in keys for key in own if key.counts]).tolist() == list(range(length))


def test_what_a_loss_draws_for_a_batch_does_not_depend_on_the_division():
    noisy = torch.zeros(7, 1, 2, 2)

    def drawn(pair: NoisyPair) -> torch.Tensor:
        assert pair.seeds is not None
        return draw(pair.seeds, pair.source, lambda count, rng: (torch.rand((count, 4), generator=rng),))[0]

    for seeds in (torch.tensor([5]), torch.arange(7)):
        whole = NoisyPair(noisy, None, seeds=seeds)
        parts = [drawn(take_share(whole, Share(rank, 3))) for rank in range(3)]
        assert torch.equal(torch.cat(parts), drawn(whole))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("trainer.devices=2",), "devices must be 1 without trainer=ddp, got 2; add trainer=ddp"),
        (("trainer=ddp", "trainer.devices=0"), "devices must be an integer of 1 or more, got 0"),
        (("trainer=ddp", "trainer.num_nodes=0"), "num_nodes must be an integer of 1 or more, got 0"),
        (("trainer=ddp", "trainer.accelerator=mps"), "got mps; set trainer.accelerator=cpu"),
        (("trainer=ddp", "trainer.devices=999", "trainer.accelerator=cpu"), "at most 8, 4 processes for each core"),
        (("trainer=ddp", "trainer.devices=2", "trainer.accelerator=gpu"), "no GPU that torch can use; set trainer.acc"),
    ],
)
def test_wrong_numbers_of_devices_are_refused(overrides: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    (fault,) = trainer_faults(compose_settings(*overrides).trainer)
    assert words in fault


def test_a_launcher_with_another_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    monkeypatch.setenv("WORLD_SIZE", "4")
    (fault,) = trainer_faults(compose_settings("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu").trainer)
    assert "devices x num_nodes must be" in fault and "got 2 x 1; set trainer.devices=4" in fault
    (fault,) = trainer_faults(compose_settings("trainer.accelerator=cpu").trainer)
    assert "torchrun has started 4 processes for one device; add trainer=ddp" in fault


def test_a_taken_port_is_refused(command: Command, course_data: Path, monkeypatch: pytest.MonkeyPatch):
    line = [*tiny_overrides(course_data), "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("MASTER_PORT", str(server.getsockname()[1]))
        ended = command(*line)
    assert ended.code == 2 and "MASTER_PORT must be a free port, got" in ended.err and ended.err.count("error:") == 1
    assert not [path for path in Path().glob("outputs/*/*") if path.is_dir()]


@pytest.mark.parametrize(
    ("environment", "following"),
    [
        ({}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, False),
        ({"LOCAL_RANK": "1"}, True),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "2", "LOCAL_RANK": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True),
        ({"TORCHELASTIC_RUN_ID": "1", "RANK": "0", "LOCAL_RANK": "0", "SLURM_PROCID": "1"}, False),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "4"}, True),
        ({"SLURM_PROCID": "0", "LOCAL_RANK": "1"}, True),  # one task, in which Lightning starts the others
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "1"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_JOB_NAME": "bash", "LOCAL_RANK": "2"}, True),
    ],
)
def test_the_rank_is_told_by_the_launcher(environment: dict[str, str], following: bool):
    assert follows(environment) is following


def test_a_run_has_one_folder_for_any_number_of_devices():
    several = ["trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2", "seed=1"]
    assert run_name("unet", several) == run_name("unet", ["seed=1"])


def run_rank(rank: int, port: int, folder: Path, words: list[str], seconds: float | None = None) -> None:
    """Run ``train`` as one of two processes of torchrun; after so many seconds it gets SIGTERM. Exit with its code."""
    os.chdir(folder)
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    os.environ |= {name: str(number) for name, number in numbers.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    sys.argv = ["train", *words, "trainer=ddp", "trainer.devices=2", "hydra.run.dir=run"]
    if seconds is not None:
        threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)).start()
    sys.exit(train.main())


def exit_codes(*processes: BaseProcess, seconds: float = SECONDS) -> list[int | None]:
    """Start the processes and return their exit codes; None for one that has not ended in time."""
    for process in processes:
        process.start()
    ends = time.monotonic() + seconds
    for process in processes:
        process.join(max(ends - time.monotonic(), 0))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


@pytest.mark.parametrize(("ranks", "sums"), [(2, [(1, 2), (3, 4)]), (1, [(4, 6)]), (3, [(4, 6), (0, 0), (0, 0)])])
def test_ranks_go_on_with_their_own_sums_of_the_loss(ranks: int, sums: list[tuple[float, float]], tmp_path: Path):
    """Added up over the ranks first, they would be rounded in another way than in an uninterrupted run."""
    for rank, expected in enumerate(sums):
        loss = WeightedMean()
        loss.mean_value, loss.weight = torch.tensor(4.0), torch.tensor(6.0)  # as in the checkpoint: of all ranks
        checkpoints = RunCheckpoints(tmp_path, Mock(), Mock(), minutes=None, steps=None)
        checkpoints.restored = {"sums": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
        module = SimpleNamespace(train_loss=loss)
        trainer = Mock(world_size=ranks, global_rank=rank, is_global_zero=rank == 0, lightning_module=module)
        checkpoints.restore_sums(trainer)
        assert (loss.mean_value.item(), loss.weight.item()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_signal_ends_a_rank_that_waits_for_the_other(rank: int, tmp_path: Path, course_data: Path):
    line = [*tiny_overrides(course_data), "model=convtrans_relu"]
    process = warm_context().Process(target=run_rank, args=(rank, free_port(), tmp_path, line, 8.0))
    assert exit_codes(process) == [143]


@pytest.mark.slow
@pytest.mark.parametrize("words", [(), ("hydra/sweeper=optuna",)], ids=["locked", "search without -m"])
def test_a_refusal_before_training_ends_the_other_rank(words: tuple[str, ...], tmp_path: Path, course_data: Path):
    line, port = [*tiny_overrides(course_data), "model=convtrans_relu", *words], free_port()
    with file_lock(tmp_path / "run" / LOCK, None):
        start = warm_context().Process
        assert exit_codes(*(start(target=run_rank, args=(rank, port, tmp_path, line)) for rank in (0, 1))) == [2, 0]


def test_a_rank_takes_the_measured_noise_from_rank_0(noisy_images: Path, tmp_path: Path):
    settings = compose_settings(*source("single", noisy_images), *ALL)
    noise = MeasuredNoise("noise: as told", ([0.1] * 3, [0.2] * 3), is_trusted=True)
    run = prepare_run(settings, tmp_path, {}, RankPlan(settings, tmp_path, None, 0, noise))
    data = run.datamodule.data
    assert isinstance(data, SingleData) and data.variance == noise.variance and data.variance_is_trusted
