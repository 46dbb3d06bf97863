"""The train state: arrays only, so that one tree is donated, sharded and saved."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from flaxvae.objectives import Objective, bind_conditions
from flaxvae.training.keys import Stream, stream_key


@flax.struct.dataclass
class TrainState:
    """Everything that a train step changes, and the run's root key."""

    step: jax.Array  # () int32, train steps taken
    params: Any  # the model's parameters
    collections: Any  # mutable collections, such as batch_stats; often empty
    opt_state: Any  # the optimizer's state, the learning rate among it
    weights: dict[str, jax.Array]  # the objective's weights, such as beta; () each
    key: jax.Array  # () the root key; never split, only folded into
    skipped: jax.Array  # () int32, steps whose update was left out
    ema: Any = None  # exponential moving average of params; None: not kept

    @property
    def variables(self) -> dict[str, Any]:
        """What ``model.apply`` takes to evaluate: averaged parameters where kept."""
        params = self.params if self.ema is None else self.ema
        return {"params": params, **self.collections}


def create_state(
    model: nn.Module,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    x: Any,
    *,
    weights: Mapping[str, float | jax.Array] | None = None,
    seed: int | jax.Array = 0,
    keep_ema: bool = False,
) -> TrainState:
    """Initialises a model and an optimizer.

    Args:
      model: an unbound model.
      objective: run once to create every parameter that it reaches.
      optimizer: an Optax gradient transformation.
      x: a preprocessed batch ``(B, ...)``; only its shape and type matter.
      weights: the objective's weights by argument name.
      seed: of the root key.
      keep_ema: whether the step keeps an average of the parameters.

    Returns:
      The state at step 0.
    """
    root = jax.random.key(seed)
    key = stream_key(root, Stream.INIT)
    values = {name: jnp.asarray(v, jnp.float32) for name, v in (weights or {}).items()}
    key_params, key_network, key_objective = jax.random.split(key, 3)
    rngs = {"params": key_params, "dropout": key_network}

    def init() -> Any:
        bound = bind_conditions(objective)
        method = functools.partial(bound, key=key_objective, **values)
        return model.init(rngs, x, method=method)

    # Under jit, initialisation is one dispatch in place of one an operation.
    variables = dict(jax.jit(init)())
    params = variables.pop("params", {})
    return TrainState(
        step=jnp.asarray(0, jnp.int32),
        params=params,
        collections=variables,
        opt_state=optimizer.init(params),
        weights=values,
        key=root,
        skipped=jnp.asarray(0, jnp.int32),
        ema=jax.tree.map(jnp.copy, params) if keep_ema else None,
    )


def count_parameters(params: Any) -> int:
    """Number of scalars in a tree of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))
