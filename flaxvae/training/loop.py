"""The loop around the compiled epoch: fit a model to a data set."""

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

from flaxvae.checks import InputError, check_at_least
from flaxvae.data import Dataset, make_preprocess
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
    """A quantity became infinite or NaN during training; the message says which."""


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
      workdir: folder for ``config.json``, ``metrics.jsonl`` and ``checkpoints``.
      settings: what else defines the run (learning rate, flags), for ``config.json``;
        a run is only continued under equal settings.
      notes: what else to record in ``config.json``, not compared.
      progress: whether to show progress on the standard error stream.

    Returns:
      The trained model with its history.

    Raises:
      InputError: a bad size, or a ``workdir`` that holds another run.
      NonFiniteError: a term of the objective became infinite or NaN; the newest
        checkpoint from before is kept.
    """
    check_at_least("epochs", epochs, 1)
    check_at_least("batch_size", batch_size, 1)
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
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": seed,
    }
    config = {
        "settings": {**own_settings, **(weights or {}), **(settings or {})},
        "model": describe_module(model),
        "data": dataset.describe(),
        "notes": dict(notes or {}),
        "environment": describe_environment(),
    }
    with _Recorder(workdir, config) as recorder:
        done, state, history = recorder.resume(state)
        compile_began = time.perf_counter()
        step = make_step(model, objective, optimizer, preprocess)
        epoch = jax.jit(make_epoch(step, len(train_x), batch_size), donate_argnums=0)
        run_epoch = epoch.lower(state, train_x).compile()
        compile_seconds = time.perf_counter() - compile_began
        validate = _make_validate(model, objective, dataset)

        num_seen = len(train_x) // batch_size * batch_size
        seconds: list[float] = []
        with show_progress(epochs, done, shown=progress) as update:
            for number in range(done + 1, epochs + 1):
                began = time.perf_counter()
                state, metrics = jax.block_until_ready(run_epoch(state, train_x))
                seconds.append(time.perf_counter() - began)
                terms = {name: np.asarray(v, float) for name, v in metrics.items()}
                _check_finite(terms, state, number)
                line = {
                    "epoch": number,
                    "train": {name: float(v.mean()) for name, v in terms.items()},
                    "validation": validate(state),
                }
                history.append(line)
                recorder.record(line, state, last=number == epochs)
                update(line, num_seen / seconds[-1])

    timing = {"compile_seconds": compile_seconds}
    if seconds:
        timing["seconds_per_epoch"] = statistics.median(seconds)
        timing["images_per_second"] = num_seen / timing["seconds_per_epoch"]
    return TrainedVAE(
        model=model,
        variables=state.variables,
        data_shape=dataset.shape,
        max_value=dataset.max_value,
        history=history,
        timing=timing,
    )


class _Recorder:
    """Writes a run into its folder; does nothing without one."""

    def __init__(self, workdir: str | Path | None, config: Mapping[str, Any]) -> None:
        self._saved_at = time.monotonic()
        self._folder = self._checkpoints = None
        if workdir is not None:
            self._folder = RunFolder(workdir)
            self._folder.open(config)
            self._checkpoints = Checkpoints(self._folder.checkpoints)

    def __enter__(self) -> "_Recorder":
        return self

    def __exit__(self, *error: object) -> None:
        if self._checkpoints:
            self._checkpoints.close()

    def resume(self, state: TrainState) -> tuple[int, TrainState, list[dict[str, Any]]]:
        """Epochs done, the state after them, and their lines of metrics."""
        if not (self._folder and self._checkpoints):
            return 0, state, []
        done = self._checkpoints.latest() or 0
        if done:
            state = self._checkpoints.restore(done, state)
        return done, state, self._folder.rewind_metrics(done)

    def record(self, line: Mapping[str, Any], state: TrainState, *, last: bool) -> None:
        """Writes one epoch's metrics, and a checkpoint now and then."""
        if not (self._folder and self._checkpoints):
            return
        self._folder.append_metrics(line)
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
    terms: Mapping[str, np.ndarray], state: TrainState, epoch: int
) -> None:
    """Raises at the first step of an epoch that went wrong.

    Args:
      terms: the objective's terms by name, one value a step.
      state: the state after the last step.
      epoch: number of the epoch.
    """
    is_bad = {name: ~np.isfinite(values) for name, values in terms.items()}
    any_bad = np.any(list(is_bad.values()), axis=0)
    first_step = int(state.step) - len(any_bad)
    if any_bad.any():
        i = int(any_bad.argmax())
        names = [f"{name} is {terms[name][i]}" for name in terms if is_bad[name][i]]
        _stop(", ".join(names), first_step + i, epoch)
    if not _all_finite(state.variables):
        _stop("a parameter is not finite", first_step + len(any_bad) - 1, epoch)


def _stop(what: str, step: int, epoch: int) -> NoReturn:
    raise NonFiniteError(
        f"{what} at step {step} (epoch {epoch}): training has stopped, what was saved "
        "before is kept; a lower learning rate usually helps"
    )


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    return jnp.array([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _full_name(function: Any) -> str:
    name = getattr(function, "__qualname__", type(function).__qualname__)
    return f"{function.__module__}.{name}"
