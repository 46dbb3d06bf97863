"""Execution options that do not change results."""

from dataclasses import dataclass

import jax

from flaxvae.checks import InputError
from flaxvae.settings import check_settings, setting
from flaxvae.training.epochs import LINES
from flaxvae.training.parallel import Parallel
from flaxvae.training.storage.tensorboard import check_tensorboard


@dataclass(frozen=True, kw_only=True)
class Engine:
    """How a run is executed: another engine gives the same numbers."""

    epochs_per_call: int | None = setting(None, at_least=1)
    """Epochs in one compiled call, unless data stream. Default: about two seconds of
    them."""
    parallel: Parallel = "jit"
    """How several devices share a batch: sharded arrays (jit) or one replica per device
    (pmap)."""
    devices: int | None = setting(None, at_least=1)
    """Number of devices. Default: all."""
    device_memory_budget: float | None = setting(None, above=0)
    """Bytes of each device for examples; what exceeds them is streamed. Default: half
    of its memory."""
    keep: int = setting(2, at_least=1)
    """Newest checkpoints that stay on disk."""
    checkpoint_seconds: float = setting(5.0, at_least=0)
    """Least time between two checkpoints, in seconds."""
    tensorboard: bool = False
    """Also write TensorBoard event files."""
    profile: bool = False
    """Write a trace of the first compiled call, for XProf or Perfetto."""

    def __post_init__(self) -> None:
        check_settings(self)
        if self.tensorboard:
            check_tensorboard()

    @classmethod
    def small(cls) -> "Engine":
        """One device, for a training whose batches are too small to be shared.

        Of several processes all take part, as they must.
        """
        return cls(devices=1 if jax.process_count() == 1 else None)

    def check_writes_nothing(self) -> None:
        """Raises `InputError` for an option that needs a run's folder."""
        for name in ("tensorboard", "profile"):
            if getattr(self, name):
                raise InputError(f"{name} needs a workdir to write to, got none")

    def check_one_device(self) -> None:
        """Raises `InputError` for an option that says how devices share the data."""
        allowed = {"parallel": "jit", "devices": 1, "device_memory_budget": None}
        for name, one in allowed.items():
            value = getattr(self, name)
            if value not in (None, one):
                raise InputError(
                    f"{name} must be left out of a sweep, which trains on one device "
                    f"and does not stream, got {value}"
                )


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

    def update(self, steps: int, seconds: float) -> None:
        """Adapts to the time that a call has needed."""
        fitting = steps * SECONDS_PER_CALL / max(seconds, 1e-6)
        self._steps = max(1, min(int(fitting), 16 * self._steps))
