"""Run the ``train`` command until the end of its first step, and print the times, for ``benchmarks.startup``."""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from typing import Any

from n2n_lightning import train as command


def main() -> int:
    """Patch the command, and run it with the arguments of this process."""
    launched, original = float(os.environ["LAUNCHED"]), command.run_job

    def run_job(*arguments: Any) -> Any:
        import pytorch_lightning as pl  # no earlier than the command imports it

        from n2n_lightning.training import run

        class FirstStep(pl.Callback):
            """Prints when the first step started and ended, and ends the process."""

            def on_train_batch_start(self, *_: Any) -> None:
                self.started = time.time()

            def on_train_batch_end(self, *_: Any) -> None:
                print("TIMES", self.started - launched, time.time() - launched, flush=True)
                os._exit(0)

        run.train = partial(run.train, callbacks=[FirstStep()])
        return original(*arguments)

    command.run_job = run_job  # type: ignore[assignment]  # it passes everything on
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
