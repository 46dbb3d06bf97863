"""A training as two pure functions: the state at step 0, and the way on from there."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.checks import InputError, check_choice, show
from flaxvae.data import Dataset
from flaxvae.models.variables import initialize_from_data
from flaxvae.objectives.objective import Objective, as_objective, with_arrays
from flaxvae.schedules import Clock, at_full_value
from flaxvae.training.advance import Advance, LoopState, create_loop_state, make_advance
from flaxvae.training.diagnostics import code_moments, describe_codes
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.fingerprint import fingerprint
from flaxvae.training.inputs import learns_labels
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimizers import freeze
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.state import TrainState, create_state
from flaxvae.training.step import Metrics, Step, make_step


@dataclass(frozen=True)
class Program:
    """What `make_program` returns.

    Attributes:
      model: the unbound model, with every part that the objective needs.
      objective: with its weights as numbers or schedules.
      clock: the run's length in steps and epochs.
      create: ``create(seed, objective=None) -> LoopState`` at step 0; both may be
        traced; None: the program's own objective.
      create_compiled: the compiled function that ``create`` calls.
      step: the train step; see `make_step`.
      optimizer: of all parameters, as the step calls it.
      batch: the shapes of a stored batch.
      make_advance: ``(position, chunk) -> advance`` for a run that continues there.
    """

    model: nn.Module
    objective: Objective
    clock: Clock
    create: Callable[..., LoopState]
    create_compiled: Any
    step: Step
    optimizer: optax.GradientTransformation
    batch: Any
    make_advance: Callable[..., Advance]

    def fingerprint(self, run: LoopState) -> dict[str, str]:
        """The checksum of initialization and train step; see `fingerprint`.

        ``optimizer`` is that of the optimizer alone, which is a part of the step.
        """
        state = jax.eval_shape(lambda: run.state)
        # What a step averages follows from what it computes, and an earlier version
        # averaged parameters alone.
        state = dataclasses.replace(state, ema_collections=None)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        with jax.enable_x64(False):  # a run continues under either setting
            # Of what has been traced already JAX returns the trace.
            created = self.create_compiled.trace(seed, state.objective)
            step = jax.jit(self.step).trace(state, self.batch)
            update = jax.jit(self.optimizer.update).trace(
                state.params, state.opt_state, state.params
            )
        of_optimizer = fingerprint(update.jaxpr)["checksum"]
        return fingerprint(created.jaxpr, step.jaxpr) | {"optimizer": of_optimizer}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WithCodes:
    """An objective that also reports how the latent dimensions are used."""

    objective: Objective

    def __call__(self, vae: Any, x: jax.Array, *, key: jax.Array) -> Any:
        """The objective's terms, and `code_moments` with the same key."""
        terms = self.objective(vae, x, key=key)
        return {"terms": terms, "codes": code_moments(vae, x, key=key)}


def make_program(
    model: nn.Module,
    dataset: Dataset,
    objective: Objective | Callable[..., Any],
    optimizer: optax.GradientTransformation,
    *,
    batch_size: int,
    epochs: int = 1,
    early_stopping: int | None = None,
    monitor: str | None = None,
    ema_decay: float = 0.0,
    skip_above: float | None = None,
    frozen: Sequence[str] = (),
    devices: Devices = ONE_DEVICE,
    halt: bool = True,
) -> Program:
    """Puts model, objective, optimizer and data together; compiles nothing.

    The arguments are those of `fit`; ``devices`` share each batch, ``halt`` see
    `make_advance`.
    """
    completed = as_objective(objective).complete(model, dataset)
    model, objective = completed.model, completed.objective
    objective.check(model, dataset)
    if dataset.train.weights is not None and objective.has_batch_terms:
        raise InputError(
            "weights must be left out for an objective with batch-level terms, got "
            f"{show(objective)}"
        )
    optimizer = freeze(completed.wrap_optimizer(optimizer), frozen)
    clock = Clock.of(len(dataset.train), batch_size, epochs)
    preprocess = dataset.preprocessing
    step = make_step(
        model,
        optimizer,
        preprocess,
        ema_decay=ema_decay,
        skip_above=skip_above,
        clock=clock,
        frozen=frozen,
    )
    evaluate = make_evaluate(model, preprocess, devices)
    is_taught = learns_labels(model)
    examples = dataset.stored(dataset.train[:1].batch(with_labels=is_taught))
    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype),
        examples,
    )

    def validate(state: TrainState, examples: Any) -> tuple[Metrics, Metrics]:
        key = stream_key(state.key, Stream.VALIDATION)
        measure = WithCodes(at_full_value(state.objective))
        means: Any = evaluate(state.variables, measure, examples, key)
        return means["terms"], describe_codes(means["codes"])

    def some_examples(count: int) -> jax.Array:
        """Training examples at random, the same for every seed."""
        x, N = dataset.train.x, len(dataset.train)
        rows = np.random.default_rng(0).choice(N, count, replace=count > N)
        seen: jax.Array = preprocess.prepare(jnp.asarray(preprocess.stored(x[rows])))
        return jnp.nan_to_num(seen) if preprocess.masked else seen

    def create_traced(seed: jax.Array, objective: Objective) -> LoopState:
        x = jax.eval_shape(preprocess, batch.x, jax.random.key(0))
        sample = batch.with_x(x).without_weight()
        state = create_state(
            model,
            objective,
            optimizer,
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), sample),
            seed=seed,
        )
        if ema_decay > 0:  # that of the collections begins in `create`
            ema = jax.tree.map(jnp.copy, state.params)
            state = dataclasses.replace(state, ema=ema)
        variables = {"params": state.params, **state.collections}
        collections = dict(initialize_from_data(model, variables, some_examples))
        state = state.begin(collections.pop("params"), collections)
        _, terms = jax.eval_shape(step, state, batch)
        if early_stopping is not None:
            watched = objective.monitor if monitor is None else monitor
            check_choice("monitor", watched, terms)
        return create_loop_state(
            state, terms, early_stopping=early_stopping is not None
        )

    # One compilation instead of one per operation, and a light one: it runs once.
    create_compiled = jax.jit(create_traced, compiler_options=_light_options())

    def create(
        seed: int | jax.Array, own_objective: Objective | None = None
    ) -> LoopState:
        chosen = objective if own_objective is None else own_objective
        args = jnp.asarray(seed, jnp.uint32), with_arrays(chosen)
        is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        run = (create_traced if is_traced else create_compiled)(*args)
        return dataclasses.replace(run, state=run.state.begin_collections())

    def make(position: int = 0, chunk: int | None = None) -> Advance:
        return make_advance(
            step,
            validate if len(dataset.validation) else None,
            num_examples=len(dataset.train),
            batch_size=batch_size,
            early_stopping=early_stopping,
            monitor=monitor,
            devices=devices,
            halt=halt,
            position=position,
            chunk=chunk,
        )

    return Program(
        model,
        objective,
        clock,
        create,
        create_compiled,
        step,
        optimizer,
        batch,
        make,
    )


def _light_options() -> dict[str, int]:
    """For a CPU, where optimizing takes most of a compilation's time."""
    return (
        {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    )
