"""The loop around the compiled epoch: fit a model to a data set."""

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import InputError, check_at_least, check_seed
from flaxvae.data import Dataset, check_dataset, make_preprocess
from flaxvae.models import describe_module
from flaxvae.objectives import Objective, elbo
from flaxvae.training.checkpoint import Checkpoints
from flaxvae.training.epoch import make_epoch, make_evaluate
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimizers import adam
from flaxvae.training.progress import show_progress
from flaxvae.training.run_folder import RunFolder, describe_environment
from flaxvae.training.state import TrainState, create_state
from flaxvae.training.step import make_step
from flaxvae.training.trained import TrainedVAE

SECONDS_BETWEEN_CHECKPOINTS = 5.0  # a save costs about 0.05 s in the background


class NonFiniteError(ArithmeticError):
    """A quantity of a run became infinite or NaN; the message says which."""


def fit(
    model: nn.Module,
    dataset: Dataset,
    *,
    objective: Objective = elbo,
    weights: Mapping[str, float] | None = None,
    optimizer: optax.GradientTransformation | None = None,
    epochs: int = 30,
    batch_size: int = 128,
    seed: int = 0,
    workdir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    notes: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> TrainedVAE:
    """Trains a model; with a ``workdir``, a run that the same call continues.

    An epoch is one compiled scan over the examples, which live on the device as they
    are stored. Each epoch ends with an evaluation on the validation split.

    Args:
      model: a module with ``encode``, ``decode`` and ``prior``, such as `VAE`.
      dataset: what to train on; its test split is not touched.
      objective: the loss as a function of the bound model; see `Objective`.
      weights: keyword arguments of the objective, such as ``{"beta": 4.0}``; they
        are part of the state, so that another value does not recompile.
      optimizer: an Optax gradient transformation; default Adam with rate 1e-3.
      epochs: how many times the training split is seen, >= 1.
      batch_size: examples a step, at most the number of training examples.
      seed: of the root key; all randomness follows from it.
      workdir: the run's folder; see `flaxvae.training.run_folder`.
      settings: what else defines the run (learning rate, flags), for ``config.json``;
        a run is only continued under equal settings.
      notes: what else to record in ``config.json``, not compared.
      progress: whether to show progress on the standard error stream.

    Returns:
      The trained model with its history.

    Raises:
      InputError: a bad size or seed, values outside the data's range, or a
        ``workdir`` that holds another run or is in use.
      NonFiniteError: a term of the objective became infinite or NaN; the newest
        checkpoint from before is kept.
    """
    check_at_least("epochs", epochs, 1)
    check_at_least("batch_size", batch_size, 1)
    check_seed(seed)
    check_dataset(dataset)
    if batch_size > len(dataset.train):
        raise InputError(
            f"batch_size must be <= {len(dataset.train)}, the number of training "
            f"examples, got {batch_size}"
        )
    optimizer = optimizer or adam()
    preprocess = make_preprocess(dataset)
    train_x = jnp.asarray(dataset.train.x)
    sample = preprocess(train_x[:batch_size], jax.random.key(0))
    state = create_state(
        model, objective, optimizer, sample, weights=weights, seed=seed
    )
    own_settings = {
        "objective": _full_name(objective),
        **{name: float(value) for name, value in state.weights.items()},
        **_describe_optimizer(state.opt_state),
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    config = {
        "settings": {**own_settings, **(settings or {})},
        "model": describe_module(model),
        "data": dataset.describe(),
        "notes": dict(notes or {}),
        "environment": describe_environment(),
    }
    timing = {}
    with _Recorder(workdir, config) as recorder:
        done, state = recorder.resume(state)
        if done < epochs:
            began = time.perf_counter()
            step = make_step(model, objective, optimizer, preprocess)
            epoch = make_epoch(step, len(train_x), batch_size)
            compiled = jax.jit(epoch, donate_argnums=0).lower(state, train_x).compile()
            timing["compile_seconds"] = time.perf_counter() - began
        validate = _make_validate(model, objective, dataset)
        num_seen = len(train_x) // batch_size * batch_size
        with show_progress(epochs, done, shown=progress) as update:
            for number in range(done + 1, epochs + 1):
                began = time.perf_counter()
                state, metrics = jax.block_until_ready(compiled(state, train_x))
                seconds = time.perf_counter() - began
                terms = {name: np.asarray(v, float) for name, v in metrics.items()}
                validation = validate(state)
                _check_finite(terms, validation, state, number)
                line = {
                    "epoch": number,
                    "train": {name: float(v.mean()) for name, v in terms.items()},
                    "validation": validation,
                }
                recorder.record(line, seconds, state, last=number == epochs)
                update(line, num_seen / seconds)

    if recorder.seconds:
        timing["seconds_per_epoch"] = statistics.median(recorder.seconds)
        timing["images_per_second"] = num_seen / timing["seconds_per_epoch"]
    return TrainedVAE(
        model=model,
        variables=state.variables,
        data_shape=dataset.shape,
        max_value=dataset.max_value,
        history=recorder.history,
        timing=timing,
    )


class _Recorder:
    """Remembers how a run goes, and writes it into the run's folder if it has one."""

    def __init__(self, workdir: str | Path | None, config: Mapping[str, Any]) -> None:
        self.history: list[dict[str, Any]] = []
        self.seconds: list[float] = []
        self._folder = None if workdir is None else RunFolder(workdir)
        self._config = config
        self._saved_at = time.monotonic()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> "_Recorder":
        with contextlib.ExitStack() as stack:
            if self._folder:
                self._folder.open(self._config)
                stack.enter_context(self._folder.lock())
                self._checkpoints = Checkpoints(self._folder.checkpoints)
                stack.callback(self._checkpoints.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def resume(self, state: TrainState) -> tuple[int, TrainState]:
        """The number of epochs done, and the state after them."""
        if not self._folder:
            return 0, state
        done = self._checkpoints.latest() or 0
        if done:
            state = self._checkpoints.restore(done, state)
        self._folder.rewind(done)
        self.history = self._folder.read_metrics()
        self.seconds = self._folder.read_seconds()
        return done, state

    def record(
        self, line: dict[str, Any], seconds: float, state: TrainState, *, last: bool
    ) -> None:
        """Takes down one epoch, and saves a checkpoint now and then."""
        self.history.append(line)
        self.seconds.append(seconds)
        if not self._folder:
            return
        self._folder.append(line, seconds)
        now = time.monotonic()
        if last or now - self._saved_at > SECONDS_BETWEEN_CHECKPOINTS:
            self._checkpoints.save(line["epoch"], state)
            self._saved_at = now


def _make_validate(
    model: nn.Module, objective: Objective, dataset: Dataset
) -> Callable[[TrainState], dict[str, float]]:
    """Makes a compiled evaluation on the validation split; empty without one."""
    if not len(dataset.validation):
        return lambda state: {}
    examples = jnp.asarray(dataset.validation.x)
    evaluate = jax.jit(make_evaluate(model, objective, make_preprocess(dataset)))

    def validate(state: TrainState) -> dict[str, float]:
        key = stream_key(state.key, Stream.VALIDATION)
        metrics = evaluate(state.variables, state.weights, examples, key)
        return {name: float(value) for name, value in metrics.items()}

    return validate


def _check_finite(
    terms: Mapping[str, np.ndarray],
    validation: Mapping[str, float],
    state: TrainState,
    epoch: int,
) -> None:
    """Raises at the first step of an epoch that went wrong.

    Args:
      terms: the objective's terms by name, one value a step.
      validation: the same on the validation split, after the last step.
      state: the state after the last step.
      epoch: number of the epoch.
    """
    is_bad = {name: ~np.isfinite(values) for name, values in terms.items()}
    any_bad = np.any(list(is_bad.values()), axis=0)
    last_step = int(state.step) - 1
    if any_bad.any():
        i = int(any_bad.argmax())
        names = [f"{name} is {terms[name][i]}" for name in terms if is_bad[name][i]]
        _stop(", ".join(names), last_step - len(any_bad) + 1 + i, epoch)
    if not _all_finite(state.variables):
        _stop("a parameter is not finite", last_step, epoch)
    for name, value in validation.items():
        if not np.isfinite(value):
            _stop(f"validation {name} is {value}", last_step, epoch)


def _stop(what: str, step: int, epoch: int) -> NoReturn:
    raise NonFiniteError(
        f"{what} at step {step} (epoch {epoch}): training has stopped, what was saved "
        "before is kept; a lower learning rate usually helps"
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _describe_optimizer(opt_state: Any) -> dict[str, Any]:
    """The kinds of an optimizer's states, and its hyper-parameters, for config.json."""
    kinds: list[str] = []
    hyperparameters: dict[str, float] = {}

    def visit(node: Any) -> None:
        if isinstance(node, tuple):
            if hasattr(node, "_fields"):
                kinds.append(type(node).__name__)
            for name, value in getattr(node, "hyperparams", {}).items():
                hyperparameters[name] = float(value)
            for child in node:
                visit(child)

    visit(opt_state)
    return {"optimizer": kinds, **hyperparameters}


def _full_name(function: Any) -> str:
    if isinstance(function, functools.partial):
        return f"{_full_name(function.func)} with {function.args} {function.keywords}"
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"
