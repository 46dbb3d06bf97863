"""The train state: arrays only, so that one tree is donated, sharded and saved."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from flaxvae.batch import Batch, as_batch
from flaxvae.checks import InputError
from flaxvae.models.bind import bind
from flaxvae.objectives.objective import Objective, check_terms, with_arrays
from flaxvae.schedules import at_full_value
from flaxvae.training.keys import Stream, stream_key


@flax.struct.dataclass
class TrainState:
    """Everything that a train step changes, and the run's root key."""

    step: jax.Array  # () int32, train steps taken
    params: Any  # the model's parameters
    collections: Any  # mutable collections, such as batch_stats; often empty
    opt_state: Any  # the optimizer's state, the learning rate among it
    objective: Objective  # with arrays for its weights, such as beta
    key: jax.Array  # () the root key; never split, only folded into
    skipped: jax.Array  # () int32, steps whose update was left out
    ema: Any = None  # exponential moving average of params; None: not kept
    ema_collections: Any = None  # that of collections; None: not kept, or none yet

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes to evaluate: averages where they are kept.

        Running statistics belong to the parameters whose activations they describe, so
        averaged parameters come with averaged statistics.
        """
        if self.ema is None:
            return {"params": self.params, **self.collections}
        averaged = self.ema_collections
        others = self.collections if averaged is None else averaged
        return {"params": self.ema, **others}

    def begin(self, params: Any, collections: Any) -> "TrainState":
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


def create_state(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    x: Any,
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

    def init() -> Any:
        at_full = at_full_value(objective)

        def method(vae: Any, batch: Batch[jax.Array]) -> None:
            seen, x = bind(vae, batch)
            with _explain_missing(seen, model, objective):
                terms = at_full(seen, x, key=key_objective)
            check_terms(terms, len(batch.x), objective)

        return model.init(rngs, as_batch(x), method=method)

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


def count_parameters(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
