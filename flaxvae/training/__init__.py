"""Training: state, step, program, the loop around them, and a run's folder."""

from flaxvae.training import hosts
from flaxvae.training.advance import create_run, make_advance
from flaxvae.training.engine import Engine
from flaxvae.training.environment import device_name, use_compilation_cache
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.interrupt import Interrupted
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.loop import NonFiniteError, fit
from flaxvae.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    adam,
    build_optimizer,
    with_critic,
)
from flaxvae.training.parallel import Devices, choose_devices
from flaxvae.training.program import Program, make_program
from flaxvae.training.run_folder import RunFolder, check_writable, load, save
from flaxvae.training.state import TrainState, create_state
from flaxvae.training.step import make_step
from flaxvae.training.sweep import Member, sweep
from flaxvae.training.trained import TrainedVAE

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Devices",
    "Engine",
    "Interrupted",
    "Member",
    "NonFiniteError",
    "Program",
    "RunFolder",
    "Stream",
    "TrainState",
    "TrainedVAE",
    "adam",
    "build_optimizer",
    "check_writable",
    "choose_devices",
    "create_run",
    "create_state",
    "device_name",
    "fit",
    "hosts",
    "load",
    "make_advance",
    "make_evaluate",
    "make_program",
    "make_step",
    "save",
    "stream_key",
    "sweep",
    "use_compilation_cache",
    "with_critic",
]
