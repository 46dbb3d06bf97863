"""A run's metrics as TensorBoard's event files, without TensorFlow."""

import importlib.util
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flaxvae.checks import InputError


def check_tensorboard() -> None:
    """Raises `InputError` unless the writer is installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            'tensorboard needs tensorboardX: pip install -e ".[tensorboard]"'
        )


class TensorBoard:
    """A callback that writes ``train/loss``, ``codes/active_units``, ..., ``seconds``.

    ``fit(..., on_epoch=TensorBoard("runs/digits/tensorboard"))``; a run that continues
    declares void what a folder holds of later epochs.
    """

    def __init__(self, folder: str | Path) -> None:
        check_tensorboard()
        self._folder = str(folder)
        self._writer: Any = None

    def __call__(self, line: Mapping[str, Any], trained: Any = None) -> None:
        """Adds one point per epoch to each curve."""
        epoch = line["epoch"]
        if self._writer is None:
            import tensorboardX

            # A file is named by the second; a second writer within it would replace it.
            suffix = f".{time.time_ns()}"
            self._writer = tensorboardX.SummaryWriter(
                self._folder, purge_step=epoch, filename_suffix=suffix
            )
        for split in ("train", "validation"):
            for name, value in line[split].items():
                self._writer.add_scalar(f"{split}/{name}", value, epoch)
        for name, values in line.get("codes", {}).items():
            if isinstance(values, float):
                self._writer.add_scalar(f"codes/{name}", values, epoch)
                continue
            for d, value in enumerate(values):
                self._writer.add_scalar(f"codes/{name}/{d}", value, epoch)
        for name in ("skipped", "seconds"):
            if name in line:
                self._writer.add_scalar(name, line[name], epoch)
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left; `fit` does so at its end. A later call goes on."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
