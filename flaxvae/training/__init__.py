"""Training: what is trained, its program, the loop around it, and a run's folder."""

from flaxvae.checks import NonFiniteError
from flaxvae.training.engine import Engine
from flaxvae.training.loop import fit
from flaxvae.training.optimization import Optimization
from flaxvae.training.optimizers import build_optimizer
from flaxvae.training.storage.run_folder import RunFolder, load, save
from flaxvae.training.storage.tensorboard import TensorBoard
from flaxvae.training.sweep import Member, sweep
from flaxvae.training.trained import Trained
from flaxvae.training.training import Training

__all__ = [
    "Engine",
    "Member",
    "NonFiniteError",
    "Optimization",
    "RunFolder",
    "TensorBoard",
    "Trained",
    "Training",
    "build_optimizer",
    "fit",
    "load",
    "save",
    "sweep",
]
