"""Train one denoiser, or sweep many: ``python -m n2n_lightning.train [-m] [group=choice] [key=value] ...``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from n2n_lightning import cli

outcomes: list[tuple[Path, int]] = []  # of this process's jobs: folder and exit code


@hydra.main(config_path=str(cli.config_folder()), config_name="train", version_base="1.3")
def job(cfg: DictConfig) -> None:
    """One run; in a sweep a run that fails leaves the others their turn."""
    hydra_cfg = HydraConfig.get()
    folder = Path(hydra_cfg.runtime.output_dir)
    code = run_job(cfg, folder, hydra_cfg)
    outcomes.append((folder, code))
    if code in (cli.SIGINT, cli.SIGTERM):
        sys.exit(code)


def run_job(cfg: DictConfig, folder: Path, hydra_cfg: Any) -> int:
    """Train and turn every way to end into an exit code, a message and a record."""
    from n2n_lightning import training

    names = {"model": hydra_cfg.runtime.choices.model, "overrides": overrides(hydra_cfg.overrides.task)}
    try:
        config = cli.plain(cfg)
        training.train(config, folder, names, lambda: save_hydra_files(folder, hydra_cfg, config))
    except cli.InputError as error:
        cli.report_error(error)
        return cli.BAD_INPUT
    except training.Interrupted as error:
        print(f"{folder.name}: interrupted; the same command goes on from the last epoch", file=sys.stderr)
        return error.code
    except Exception as error:
        traceback = folder / "train.log"
        where = f"{traceback} has the traceback" if traceback.exists() else "HYDRA_FULL_ERROR=1 shows where"
        cli.report_error(error, f"{folder.name} failed: {error}; {where}")
        return cli.FAILED
    finally:
        remove_if_empty(folder)
    return cli.DONE


def overrides(task: list[str]) -> dict[str, str]:
    """Override key -> value, as given, but for those that a run's name leaves out."""
    pairs = (override.lstrip("+~").partition("=") for override in task)
    return {key: value for key, _, value in pairs if key not in cli.UNNAMED}


def save_hydra_files(folder: Path, hydra_cfg: Any, config: dict[str, Any]) -> None:
    """``.hydra/`` as Hydra writes it; written once the run is sure to start, so that a refused one leaves none."""
    target = folder / ".hydra"
    target.mkdir(parents=True, exist_ok=True)
    OmegaConf.save(OmegaConf.create(config), target / "config.yaml")
    OmegaConf.save(OmegaConf.create({"hydra": OmegaConf.to_container(hydra_cfg, resolve=False)}), target / "hydra.yaml")
    OmegaConf.save(hydra_cfg.overrides.task, target / "overrides.yaml")


def remove_if_empty(folder: Path) -> None:
    """Hydra makes the folder, in its study's, in outputs, before the job can look at its input."""
    for path in (folder, *folder.parents[:2]):
        if path == Path.cwd() or not path.is_dir() or any(path.iterdir()):
            return
        path.rmdir()


def main() -> int:
    """Exit code 0 when every run is done, else that of the worst."""
    code = cli.run_hydra(job, "train")
    if len(outcomes) > 1:
        from rich.console import Console

        from n2n_lightning.results import console_table, read_run

        started = [folder for folder, code in outcomes if code != cli.BAD_INPUT]
        Console().print(console_table([read_run(folder) for folder in started if (folder / "result.json").exists()]))
    codes = [code, *(code for _, code in outcomes)]
    return next((c for c in (cli.SIGTERM, cli.SIGINT, cli.FAILED, cli.BAD_INPUT) if c in codes), code)


if __name__ == "__main__":
    sys.exit(main())
