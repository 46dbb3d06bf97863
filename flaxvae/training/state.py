"""What a training changes: arrays only, so that one tree is donated, sharded, saved."""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.typing import VariableDict

from flaxvae.batch import Batch, as_batch
from flaxvae.checks import InputError
from flaxvae.models.bind import bind
from flaxvae.objectives.objective import (
    FunctionObjective,
    Objective,
    check_returned,
    with_arrays,
)
from flaxvae.schedules import at_full_value
from flaxvae.training.densities import check_densities
from flaxvae.training.keys import Stream, stream_key

Metrics = dict[str, jax.Array]
Variables = Mapping[str, optax.Params]
"""What ``model.apply`` takes: ``params`` and mutable collections by name."""


@flax.struct.dataclass
class TrainState:
    """Everything that a train step changes, and the run's root key."""

    step: jax.Array  # () int32, train steps taken
    params: optax.Params  # the model's parameters
    collections: Variables  # mutable collections, such as batch_stats; often empty
    opt_state: optax.OptState  # the optimizer's state, the learning rate among it
    objective: Objective  # with arrays for its weights, such as beta
    key: jax.Array  # () the root key; never split, only folded into
    skipped: jax.Array  # () int32, steps whose update was left out
    ema: optax.Params | None = None  # moving average of params; None: not kept
    ema_collections: Variables | None = None  # that of collections; None: none yet

    @property
    def variables(self) -> Variables:
        """What ``model.apply`` takes to evaluate: averages where they are kept.

        Running statistics belong to the parameters whose activations they describe, so
        averaged parameters come with averaged statistics.
        """
        if self.ema is None:
            return {"params": self.params, **self.collections}
        averaged = self.ema_collections
        others = self.collections if averaged is None else averaged
        return {"params": self.ema, **others}

    def begin(self, params: optax.Params, collections: Variables) -> "TrainState":
        """The state with other variables, where averages of them begin if kept."""
        state: TrainState = dataclasses.replace(
            self,
            params=params,
            collections=collections,
            ema=None if self.ema is None else jax.tree.map(jnp.copy, params),
        )
        return state.begin_collections() if self.ema_collections is not None else state

    def begin_collections(self) -> "TrainState":
        """The state whose average of the collections, if kept, begins with them now."""
        if self.ema is None:
            return self
        copied = jax.tree.map(jnp.copy, self.collections)
        return dataclasses.replace(self, ema_collections=copied)


@flax.struct.dataclass
class Best:
    """The variables with the lowest validation value so far."""

    value: jax.Array  # () what `validation_value` was then
    epoch: jax.Array  # () int32, counted from 1; 0 before the first
    waited: jax.Array  # () int32, epochs since then
    variables: Variables  # what `TrainState.variables` was then


@flax.struct.dataclass
class LoopState:
    """All that a run carries from step to step; this is what a checkpoint holds."""

    state: TrainState
    sums: Metrics  # the objective's terms, summed over the epoch's steps so far
    counted: jax.Array  # () int32, steps in ``sums``; skipped ones are not
    bad_step: jax.Array  # () int32, the first step with a non-finite number, or -1
    bad_terms: Metrics  # the objective's terms at that step
    best: Best | None = None  # kept for early stopping only
    # () float32, the mean weights of the batches in ``sums``; None: all examples alike
    weight: jax.Array | None = None

    @property
    def variables(self) -> Variables:
        """The variables that the run would hand out now."""
        return self.state.variables if self.best is None else self.best.variables


def create_loop_state(
    state: TrainState,
    terms: Metrics,
    *,
    early_stopping: bool,
    has_weights: bool = False,
) -> LoopState:
    """The run at step 0.

    Args:
      state: the train state.
      terms: what a step reports, by name; only the names and shapes matter.
      early_stopping: whether the best variables are kept.
      has_weights: whether examples have weights.
    """
    zeros = {name: jnp.zeros((), jnp.float32) for name in terms}
    best = None
    if early_stopping:
        zero = jnp.asarray(0, jnp.int32)
        variables = jax.tree.map(jnp.copy, state.variables)
        best = Best(jnp.asarray(jnp.inf, jnp.float32), zero, jnp.copy(zero), variables)
    return LoopState(
        state=state,
        sums=zeros,
        counted=jnp.asarray(0, jnp.int32),
        bad_step=jnp.asarray(-1, jnp.int32),
        bad_terms=jax.tree.map(jnp.copy, zeros),
        best=best,
        weight=jnp.zeros((), jnp.float32) if has_weights else None,
    )


def create_state(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    x: Batch[jax.Array] | jax.Array,
    *,
    seed: int | jax.Array = 0,
    keep_ema: bool = False,
) -> TrainState:
    """Initializes a model and an optimizer.

    Args:
      model: an unbound model.
      objective: run once to create every parameter that it reaches.
      optimizer: an Optax gradient transformation.
      x: preprocessed examples ``(B, ...)``, or a `Batch` of them; only shapes and types
        matter.
      seed: of the root key.
      keep_ema: whether the step keeps averages of parameters and collections.

    Returns:
      The state at step 0.
    """
    root = jax.random.key(seed)
    key = stream_key(root, Stream.INIT)
    objective = with_arrays(objective)
    key_params, key_network, key_objective = jax.random.split(key, 3)
    rngs = {"params": key_params, "dropout": key_network}

    def init() -> VariableDict:
        at_full = at_full_value(objective)

        def method(vae: nn.Module, batch: Batch[jax.Array]) -> None:
            seen, x = bind(vae, batch)
            with _explain_missing(seen, model, objective):
                terms = at_full(seen, x, key=key_objective)
            check_returned(terms, len(batch.x), objective)

        return model.init(rngs, as_batch(x), method=method)

    is_function = isinstance(objective, FunctionObjective)
    is_own = not is_function and type(objective).__module__.startswith("flaxvae.")
    check_densities(model, as_batch(x), are_summed=is_own)
    # Under jit, initialization is one dispatch instead of one per operation.
    variables = dict(jax.jit(init)())
    params = variables.pop("params", {})
    state = TrainState(
        step=jnp.asarray(0, jnp.int32),
        params=params,
        collections=variables,
        opt_state=optimizer.init(params),
        objective=objective,
        key=root,
        skipped=jnp.asarray(0, jnp.int32),
        ema=jax.tree.map(jnp.copy, params) if keep_ema else None,
    )
    return state.begin_collections()


@contextlib.contextmanager
def _explain_missing(
    seen: object, model: nn.Module, objective: Objective
) -> Iterator[None]:
    """An `InputError` in place of Python's for a method that the model lacks.

    Args:
      seen: the model under a batch, as the objective sees it.
      model: the unbound model.
      objective: what is called.
    """
    try:
        yield
    except AttributeError as error:
        if error.obj is not seen:
            raise
        raise InputError(
            f"the model must have {error.name} for the objective "
            f"{type(objective).__name__}, got {type(model).__name__} without it"
        ) from error


def count_parameters(params: optax.Params) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
