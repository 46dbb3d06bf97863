"""How a model's parameters are fitted: the typed settings of `fit`."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import optax

from flaxvae.checks import InputError, check_choice, show
from flaxvae.data import Dataset
from flaxvae.data.dataset import check_dataset
from flaxvae.schedules import Clock
from flaxvae.settings import check_settings, setting
from flaxvae.training.optimizers import (
    LearningRateSchedule,
    OptimizerName,
    build_optimizer,
)

EXAMPLES_SEEN = 30 * 57_000  # by a training whose length nobody chose
MOST_EPOCHS = 300
BATCH_SIZE = 128  # of data that has so many examples
NAMED_OPTIMIZER = (
    "optimizer",
    "learning_rate",
    "lr_schedule",
    "warmup_epochs",
    "weight_decay",
    "clip_norm",
)
"""Fields of `Optimization` that an optimizer of the user's own replaces."""


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How the model is trained.

    Example:
      >>> Optimization(epochs=3, learning_rate=0.01).epochs
      3
    """

    epochs: int | None = setting(None, at_least=1)
    """Passes over the training examples. Default: 30 for MNIST, more for smaller data.
    """
    batch_size: int | None = setting(None, at_least=1)
    """Examples in a training step. Default: 128, or a quarter of fewer than 128."""
    accumulation_steps: int = setting(1, at_least=1)
    """Equal parts of a batch whose gradients are computed one after the other, in less
    memory, and averaged."""
    learning_rate: float = setting(1e-3, above=0)
    """Highest step size of the optimizer."""
    optimizer: OptimizerName = "adam"
    """Optimizer, with Optax's default constants. muon needs the fewest epochs, with
    batches of 500 or so."""
    lr_schedule: LearningRateSchedule = "constant"
    """Decay of the step size: to 0 (cosine, linear) or to 1 % (exponential)."""
    warmup_epochs: float = setting(0.0, at_least=0)
    """Epochs in which the step size rises linearly from 0."""
    weight_decay: float | None = setting(None, at_least=0)
    """Decoupled weight decay of kernels, by name. Default: 1e-4 for adamw, otherwise
    none."""
    clip_norm: float | None = setting(None, above=0)
    """Largest global norm of the gradient. Default: no clipping."""
    skip_above: float | None = setting(None, above=0, infinite=True)
    """Skip updates whose gradient norm exceeds this or is not finite (inf: only those).
    """
    ema_decay: float = setting(0.0, at_least=0, below=1)
    """Decay of an exponential moving average of the parameters and running statistics,
    which is validated and returned; 0: none."""
    early_stopping: int | None = setting(None, at_least=1)
    """Stop after this many epochs without a better validation value; keep the best."""
    monitor: str | None = setting(None, needs={"early_stopping": True})
    """Validation term that early stopping compares, such as elbo or log_likelihood.
    Default: what the objective declares, for most its loss with weights at their full
    values."""
    freeze: tuple[str, ...] = ()
    """Parts of the model that are not trained, such as encoder or decoder/output."""

    def __post_init__(self) -> None:
        if isinstance(self.freeze, str):
            object.__setattr__(self, "freeze", (self.freeze,))
        check_settings(self)

    def for_dataset(self, num_examples: int) -> "Optimization":
        """The settings with numbers of epochs and examples that suit the data.

        Without a choice, 30 epochs for 57,000 training examples and more for fewer, at
        most 300; batches of 128, or of a quarter of fewer than 128 examples.

        Raises:
          InputError: fewer training examples than a batch has, or none.
        """
        if num_examples < 1:
            raise InputError("dataset must hold a training example, got none")
        if self.batch_size is not None and self.batch_size > num_examples:
            raise InputError(
                f"batch_size must be <= {num_examples}, the number of training "
                f"examples, got {self.batch_size}"
            )
        fitting = min(max(round(EXAMPLES_SEEN / num_examples), 1), MOST_EPOCHS)
        few = min(max(num_examples // 4, 2), num_examples)
        few -= few % 8 if few > 8 else 0  # which many numbers of devices divide
        size = BATCH_SIZE if num_examples >= BATCH_SIZE else few
        return dataclasses.replace(
            self, epochs=self.epochs or fitting, batch_size=self.batch_size or size
        )

    def clock(self, num_examples: int) -> Clock:
        """Steps and epochs of a run on so many training examples."""
        return Clock.of(num_examples, self.batch_size or 1, self.epochs or 1)

    def build(self, clock: Clock) -> optax.GradientTransformation:
        """The optimizer for a run of this length; its learning rate is in its state.

        Raises:
          InputError: a warm-up as long as the run, or shorter than a step.
        """
        steps = clock.steps(self.warmup_epochs)
        if steps >= clock.total_steps > 0:
            raise InputError(
                f"warmup_epochs must be < {clock.epochs}, the epochs of the run, got "
                f"{self.warmup_epochs:g}"
            )
        if self.warmup_epochs and not steps:
            raise InputError(
                "warmup_epochs must be 0 or at least one step (an epoch has "
                f"{clock.steps_per_epoch}), got {self.warmup_epochs:g}"
            )
        return build_optimizer(
            self.optimizer,
            self.learning_rate,
            schedule=self.lr_schedule,
            warmup_steps=steps,
            total_steps=clock.total_steps,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )


def choose_optimization(
    optimization: Optimization | None,
    optimizer: str | optax.GradientTransformation | None,
    choices: Mapping[str, Any],
) -> tuple[Optimization, optax.GradientTransformation | None]:
    """The settings with ``choices`` in their place, and an optimizer of the user's own.

    Raises:
      InputError: an unknown name or a value out of its range.
    """
    if not isinstance(optimization, Optimization | None):
        raise InputError(
            f"optimization must be an Optimization, got {show(optimization)}"
        )
    for name in choices:
        names = [field.name for field in dataclasses.fields(Optimization)]
        check_choice("argument", name, names)
    own = None if isinstance(optimizer, str) else optimizer
    if isinstance(own, optax.MultiSteps):
        own = own.gradient_transformation()
    if isinstance(optimizer, str):
        choices = {**choices, "optimizer": optimizer}
    return dataclasses.replace(optimization or Optimization(), **choices), own


def complete_optimization(
    optimization: Optimization,
    optimizer: optax.GradientTransformation | None,
    dataset: Dataset,
) -> Optimization:
    """The settings for a data set, with what was left open.

    Args:
      optimization: the user's settings.
      optimizer: the user's own, in place of the `NAMED_OPTIMIZER` settings.
      dataset: what to train on.

    Raises:
      InputError: data that cannot be trained on, or settings that do not fit them or
        the optimizer.
    """
    if not isinstance(optimization, Optimization):
        raise InputError(
            f"optimization must be an Optimization, got {show(optimization)}"
        )
    if optimizer is not None:
        if not isinstance(optimizer, optax.GradientTransformation):
            raise InputError(
                "optimizer must be a name or a gradient transformation of Optax, such "
                f"as optax.adam(1e-3), got {show(optimizer)}"
            )
        default = Optimization()
        for name in NAMED_OPTIMIZER:
            if getattr(optimization, name) != getattr(default, name):
                raise InputError(
                    f"{name} must be left out beside an optimizer of your own, got "
                    f"{getattr(optimization, name)}"
                )
    check_dataset(dataset)
    if not len(dataset.train):
        raise InputError(f"{dataset.name!r} must have training examples, got none")
    chosen = optimization.for_dataset(len(dataset.train))
    if chosen.early_stopping is not None and not len(dataset.validation):
        raise InputError(
            "early_stopping must be left out without a validation split, got "
            f"{chosen.early_stopping}"
        )
    clock = chosen.clock(len(dataset.train))
    if clock.total_steps >= 2**31:  # steps are counted in int32
        most = (2**31 - 1) // clock.steps_per_epoch
        raise InputError(f"epochs must be <= {most}, got {clock.epochs}")
    return chosen


def expect_dataset(dataset: object) -> Dataset:
    """The argument; raises `InputError` for anything but a data set."""
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset must be a Dataset, got {type(dataset).__name__}: use "
            "flaxvae.data.from_arrays for arrays and tables in memory"
        )
    return dataset
