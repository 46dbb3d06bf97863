"""How a run is carried out, as against what comes out of it."""

from dataclasses import dataclass
from typing import Literal

from flaxvae.checks import check_above, check_at_least, check_choice
from flaxvae.training.advance import LINES
from flaxvae.training.parallel import PARALLEL
from flaxvae.training.tensorboard import check_tensorboard


@dataclass(frozen=True)
class Engine:
    """How a run is carried out: another engine gives the same numbers."""

    epochs_per_call: int | None = None
    """Epochs in a compiled call, unless data stream; None: about two seconds' worth."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How several devices share a batch: sharded arrays (jit) or a copy each (pmap)."""
    devices: int | None = None
    """Number of devices; None: all."""
    device_memory_budget: float | None = None
    """Bytes of a device for examples; more are streamed. None: half of its memory."""
    keep: int = 2
    """Newest checkpoints that stay on disk."""
    checkpoint_seconds: float = 5.0
    """Least time between two checkpoints."""
    tensorboard: bool = False
    """Also write TensorBoard's event files."""
    profile: bool = False
    """Write a trace of the first compiled call, for XProf or Perfetto."""

    def check(self) -> None:
        """Raises `InputError` for a value that cannot be used."""
        if self.epochs_per_call is not None:
            check_at_least("epochs_per_call", self.epochs_per_call, 1)
        check_choice("parallel", self.parallel, PARALLEL)
        if self.devices is not None:
            check_at_least("devices", self.devices, 1)
        if self.device_memory_budget is not None:
            check_above("device_memory_budget", self.device_memory_budget, 0)
        if self.tensorboard:
            check_tensorboard()
        check_at_least("keep", self.keep, 1)
        check_at_least("checkpoint_seconds", self.checkpoint_seconds, 0)


SECONDS_PER_CALL = 2.0  # what a call should take, so that the terminal moves
FIRST_STEPS = 64  # in the first call, before the speed is known


class Pace:
    """Decides how far the next call goes; no result depends on it."""

    def __init__(self, steps_per_epoch: int, epochs_per_call: int | None) -> None:
        self.steps_per_epoch = steps_per_epoch
        self._epochs = epochs_per_call
        self._steps = FIRST_STEPS

    def next_stop(self, position: int) -> int:
        """The step until which to go from ``position``."""
        epoch = position // self.steps_per_epoch
        epochs = self._epochs or self._steps // self.steps_per_epoch
        if epochs:
            return (epoch + min(epochs, LINES)) * self.steps_per_epoch
        return min(position + self._steps, (epoch + 1) * self.steps_per_epoch)

    def took(self, steps: int, seconds: float) -> None:
        """Learns from a call."""
        fitting = steps * SECONDS_PER_CALL / max(seconds, 1e-6)
        self._steps = max(1, min(int(fitting), 16 * self._steps))
