"""Training: state, step, epoch, the loop around them, and a run's folder."""

from flaxvae.training.epoch import make_epoch, make_evaluate
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.loop import NonFiniteError, fit
from flaxvae.training.optimizers import adam
from flaxvae.training.run_folder import (
    RunFolder,
    check_writable,
    device_name,
    load,
)
from flaxvae.training.state import TrainState, create_state
from flaxvae.training.step import make_step
from flaxvae.training.trained import TrainedVAE

__all__ = [
    "NonFiniteError",
    "RunFolder",
    "Stream",
    "TrainState",
    "TrainedVAE",
    "adam",
    "check_writable",
    "create_state",
    "device_name",
    "fit",
    "load",
    "make_epoch",
    "make_evaluate",
    "make_step",
    "stream_key",
]
