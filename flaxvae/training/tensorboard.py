"""A run's metrics as TensorBoard's event files, without TensorFlow."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flaxvae.checks import InputError


def check_tensorboard() -> None:
    """Raises `InputError` unless the writer is installed."""
    if importlib.util.find_spec("tensorboardX") is None:
        raise InputError(
            'tensorboard needs tensorboardX: pip install -e ".[tensorboard]"'
        )


class EventWriter:
    """Writes ``train/loss``, ``codes/active_units``, ..., ``seconds`` by epoch.

    A run that continues declares what lies after its checkpoint as void.
    """

    def __init__(self, folder: Path, epochs_done: int) -> None:
        import tensorboardX

        self._writer = tensorboardX.SummaryWriter(
            str(folder), purge_step=epochs_done + 1
        )

    def write(
        self, lines: Sequence[Mapping[str, Any]], seconds: Sequence[float]
    ) -> None:
        """Adds one point an epoch to each curve."""
        for line, each in zip(lines, seconds, strict=True):
            for split in ("train", "validation"):
                for name, value in line[split].items():
                    self._writer.add_scalar(f"{split}/{name}", value, line["epoch"])
            for name, values in line.get("codes", {}).items():
                if isinstance(values, float):
                    self._writer.add_scalar(f"codes/{name}", values, line["epoch"])
                    continue
                for d, value in enumerate(values):
                    self._writer.add_scalar(f"codes/{name}/{d}", value, line["epoch"])
            if "skipped" in line:
                self._writer.add_scalar("skipped", line["skipped"], line["epoch"])
            self._writer.add_scalar("seconds", each, line["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
