"""A training as two pure functions: the run at step 0, and the way on from there."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.data import Dataset
from flaxvae.models import start_from
from flaxvae.objectives import Objective
from flaxvae.training.advance import Advance, Run, create_run, make_advance
from flaxvae.training.diagnostics import code_moments, describe_codes
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.state import TrainState, create_state
from flaxvae.training.step import Metrics, Step, make_step


@dataclass(frozen=True)
class Program:
    """What `make_program` makes.

    Attributes:
      create: ``create(seed, weights) -> Run`` at step 0; both may be traced.
      step: the train step; see `make_step`.
      make_advance: ``(position, chunk) -> advance`` for a run that continues there.
      steps_per_epoch: full batches in the training split.
    """

    create: Callable[[Any, Mapping[str, Any]], Run]
    step: Step
    make_advance: Callable[..., Advance]
    steps_per_epoch: int


def make_program(
    model: nn.Module,
    dataset: Dataset,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    early_stopping: int | None = None,
    ema_decay: float = 0.0,
    skip_above: float | None = None,
    schedules: Mapping[str, optax.Schedule] | None = None,
    devices: Devices = ONE_DEVICE,
    halt: bool = True,
) -> Program:
    """Puts model, objective, optimizer and data together; compiles nothing.

    The arguments are those of `fit`; ``devices`` share each batch, ``halt`` see
    `make_advance`.
    """
    preprocess = dataset.preprocessing
    step = make_step(
        model,
        objective,
        optimizer,
        preprocess,
        ema_decay=ema_decay,
        skip_above=skip_above,
        schedules=schedules,
    )

    def measure(vae: Any, x: jax.Array, *, key: jax.Array, **weights: Any) -> Any:
        terms = objective(vae, x, key=key, **weights)
        return {"terms": terms, "codes": code_moments(vae, x, key=key)}

    evaluate = make_evaluate(model, measure, preprocess, devices)
    examples = dataset.train.examples
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype),
        examples,
    )

    def validate(state: TrainState, examples: Any) -> tuple[Metrics, Metrics]:
        key = stream_key(state.key, Stream.VALIDATION)
        means: Any = evaluate(state.variables, state.weights, examples, key)
        return means["terms"], describe_codes(means["codes"])

    def some_examples(count: int) -> jax.Array:
        """Training examples at random, the same for every seed."""
        x, N = dataset.train.x, len(dataset.train)
        rows = np.random.default_rng(0).choice(N, count, replace=count > N)
        seen: jax.Array = preprocess.prepare(jnp.asarray(x[rows]))
        return seen

    def create_traced(seed: jax.Array, weights: Mapping[str, Any]) -> Run:
        sample = jax.eval_shape(preprocess, batch, jax.random.key(0))
        state = create_state(
            model,
            objective,
            optimizer,
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sample),
            weights=weights,
            seed=seed,
            keep_ema=ema_decay > 0,
        )
        variables = {"params": state.params, **state.collections}
        collections = dict(start_from(model, variables, some_examples))
        params = collections.pop("params")
        ema = None if state.ema is None else jax.tree.map(jnp.copy, params)
        state = dataclasses.replace(
            state, params=params, collections=collections, ema=ema
        )
        _, terms = jax.eval_shape(step, state, batch)
        return create_run(state, terms, early_stopping=early_stopping is not None)

    # One compilation in place of one an operation, and a light one: it runs once.
    create_compiled = jax.jit(create_traced, compiler_options=_light_options())

    def create(seed: int | jax.Array, weights: Mapping[str, Any]) -> Run:
        args = jnp.asarray(seed, jnp.uint32), dict(weights)
        is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        return (create_traced if is_traced else create_compiled)(*args)

    def make(position: int = 0, chunk: int | None = None) -> Advance:
        return make_advance(
            step,
            validate if len(dataset.validation) else None,
            num_examples=len(dataset.train),
            batch_size=batch_size,
            early_stopping=early_stopping,
            devices=devices,
            halt=halt,
            position=position,
            chunk=chunk,
        )

    return Program(create, step, make, len(dataset.train) // batch_size)


def _light_options() -> dict[str, int]:
    """For a CPU, where optimizing takes most of a compilation's time."""
    return (
        {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    )
