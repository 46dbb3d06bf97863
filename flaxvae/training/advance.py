"""Training as one compiled program: any number of steps and epochs in one call.

Shuffling, preprocessing, validation, early stopping and the best parameters are inside,
so the host only says how far to go. Where a call ends changes no result. Examples that
do not fit the device come in chunks, shuffled by the host in the same order.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from flaxvae.objectives.objective import Objective
from flaxvae.schedules import Clock
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.state import TrainState
from flaxvae.training.step import Metrics, Step

LINES = 256  # epochs that one call can report
# Steps in one loop of fixed length. On a CPU and a TPU a loop of any length is free; a
# GPU waits for the host before each round of a loop whose length it does not know.
STEPS_PER_LOOP = {"cpu": 1, "tpu": 1}
STEPS_PER_LOOP_ELSEWHERE = 32

# As stored: the training split, or a chunk of its batches, and the validation split.
Examples = tuple[Any, Any]
Validate = Callable[[TrainState, jax.Array], tuple[Metrics, Metrics]]
Advance = Callable[..., tuple["LoopState", "Report"]]


@flax.struct.dataclass
class Best:
    """The variables with the lowest validation value so far."""

    value: jax.Array  # () what `validation_value` was then
    epoch: jax.Array  # () int32, counted from 1; 0 before the first
    waited: jax.Array  # () int32, epochs since then
    variables: Any  # what `TrainState.variables` was then


@flax.struct.dataclass
class LoopState:
    """All that a run carries from step to step; this is what a checkpoint holds."""

    state: TrainState
    sums: Metrics  # the objective's terms, summed over the epoch's steps so far
    counted: jax.Array  # () int32, steps in ``sums``; skipped ones are not
    bad_step: jax.Array  # () int32, the first step with a non-finite number, or -1
    bad_terms: Metrics  # the objective's terms at that step
    best: Best | None = None  # kept for early stopping only

    @property
    def variables(self) -> Any:
        """The variables that the run would hand out now."""
        return self.state.variables if self.best is None else self.best.variables


@flax.struct.dataclass
class Report:
    """What one call tells the host."""

    position: jax.Array  # () int32, steps done in all
    num_lines: jax.Array  # () int32, epochs finished in this call
    train: Metrics  # means of the terms, (LINES,) each
    validation: Metrics  # the same on the validation split; empty without one
    codes: Metrics  # see `describe_codes`, (LINES, ...) each; of the same split
    skipped: jax.Array  # (LINES,) int32, updates left out
    waited: jax.Array  # (LINES,) int32, see `Best`


def create_loop_state(
    state: TrainState, terms: Metrics, *, early_stopping: bool
) -> LoopState:
    """The run at step 0.

    Args:
      state: the train state.
      terms: what a step reports, by name; only the names and shapes matter.
      early_stopping: whether the best variables are kept.
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
    )


def make_advance(
    step: Step,
    validate: Validate | None,
    *,
    num_examples: int,
    batch_size: int,
    early_stopping: int | None = None,
    monitor: str | None = None,
    devices: Devices = ONE_DEVICE,
    halt: bool = True,
    position: int = 0,
    chunk: int | None = None,
) -> Advance:
    """Makes ``advance(run, examples, position, until) -> (run, report)``.

    The examples are shuffled by a key that depends on the root key and the epoch's
    number alone, and cut into full batches; the remainder, different in each epoch,
    is left out. After an epoch's last step the run is validated.

    Args:
      step: the train step.
      validate: the terms on the validation split, and how its codes are used, as a
        function of the train state and the stored examples, or None.
      num_examples: N, number of training examples.
      batch_size: B, at most N.
      early_stopping: epochs to wait for a better validation value, or None.
      monitor: the term that is compared; None: that of the objective.
      devices: who shares each batch.
      halt: whether to stop at a non-finite number and when nothing better was found
        for long. Many runs mapped over one program go on together; then a run that
        is over keeps its best variables, and its host drops the later lines.
      position: steps that the run has taken before its first call.
      chunk: the examples are not the training split but the batches of so many steps,
        ``(chunk, B, ...)``, the first of which is that of the call's ``position``.

    Returns:
      A pure function from a run that has taken ``position`` steps and the stored
      examples of both splits to the run after ``until`` steps, at most `LINES` epochs
      and ``chunk`` steps later.
    """
    num_batches = Clock.of(num_examples, batch_size).steps_per_epoch
    inner = choose_steps_per_loop(num_batches, position, chunk or 0)

    def advance(
        run: LoopState, examples: Examples, position: jax.Array, until: jax.Array
    ) -> tuple[LoopState, Report]:
        training, held_out = examples
        first = position  # of this call

        def one_step(run: LoopState, batch: Any) -> tuple[LoopState, None]:
            before = run.state.skipped
            if chunk is None:
                rows = devices.split(batch)
                batch = jax.tree.map(lambda leaf: leaf[rows], training)
            else:
                batch = jax.tree.map(devices.own_part, batch)
            state, terms = step(run.state, batch)
            return _count(run, state, terms, is_used=state.skipped == before), None

        def one_epoch(carry: tuple[Any, ...]) -> tuple[Any, ...]:
            run, position, report = carry
            number = position // num_batches
            order = None
            if chunk is None:
                order = shuffle(run.state.key, number, num_examples)
            end = (number + 1) * num_batches
            stop = jnp.minimum(end, until)

            def some_steps(
                carry: tuple[LoopState, jax.Array],
            ) -> tuple[LoopState, jax.Array]:
                run, position = carry
                if order is None:
                    start = position - first

                    def cut(leaf: jax.Array) -> jax.Array:
                        return jax.lax.dynamic_slice_in_dim(leaf, start, inner)

                    batches = jax.tree.map(cut, training)
                else:
                    start = (position - number * num_batches) * batch_size
                    rows = jax.lax.dynamic_slice(order, (start,), (inner * batch_size,))
                    batches = rows.reshape(inner, batch_size)
                run, _ = jax.lax.scan(one_step, run, batches)
                return run, position + inner

            def more_steps(carry: tuple[LoopState, jax.Array]) -> jax.Array:
                run, position = carry
                return (position < stop) & _goes_on(run)

            run, position = jax.lax.while_loop(more_steps, some_steps, (run, position))
            is_over = (position == end) & _goes_on(run)
            run, report = jax.lax.cond(
                is_over, finish_epoch, lambda *same: same, run, report
            )
            return run, position, report

        def finish_epoch(run: LoopState, report: Report) -> tuple[LoopState, Report]:
            run, train, validation, codes = close_epoch(run)
            i = report.num_lines
            waited = 0 if run.best is None else run.best.waited

            def write(lines: Any, line: Any) -> Any:
                return jax.tree.map(lambda old, new: old.at[i].set(new), lines, line)

            report = dataclasses.replace(
                report,
                num_lines=i + 1,
                train=write(report.train, train),
                validation=write(report.validation, validation),
                codes=write(report.codes, codes),
                skipped=write(report.skipped, num_batches - run.counted),
                waited=write(report.waited, waited),
            )
            zeros = jax.tree.map(jnp.zeros_like, (run.sums, run.counted))
            return dataclasses.replace(run, sums=zeros[0], counted=zeros[1]), report

        def close_epoch(run: LoopState) -> tuple[LoopState, Metrics, Metrics, Metrics]:
            """Means over the epoch, validation, and what follows from it."""
            counted = jnp.maximum(run.counted, 1)
            train = {name: total / counted for name, total in run.sums.items()}
            validation, codes = validate(run.state, held_out) if validate else ({}, {})
            # Skipped to the last step, or broken by the last update: a bad end.
            is_fine = _all_finite(run.state.params) & (run.counted > 0)
            is_bad = (run.bad_step < 0) & ~is_fine
            bad_step = jnp.where(is_bad, run.state.step - 1, run.bad_step)
            bad_terms = _where(is_bad, train, run.bad_terms)
            best = run.best
            if best is not None and early_stopping is not None:
                value = validation_value(run.state.objective, validation, monitor)
                best = _improve(best, run.state, value, early_stopping)
            run = dataclasses.replace(
                run, bad_step=bad_step, bad_terms=bad_terms, best=best
            )
            return run, train, validation, codes

        def _goes_on(run: LoopState) -> jax.Array | bool:
            if not halt:
                return True
            is_over = run.bad_step >= 0
            if run.best is not None and early_stopping is not None:
                is_over |= run.best.waited >= early_stopping
            return ~is_over

        def more_epochs(carry: tuple[Any, ...]) -> jax.Array:
            run, position, report = carry
            return (position < until) & _goes_on(run) & (report.num_lines < LINES)

        terms: Metrics = {}
        codes: Metrics = {}
        if validate:
            terms, codes = jax.eval_shape(validate, run.state, held_out)
        zeros = jnp.zeros(LINES, jnp.float32)
        counts = jnp.zeros(LINES, jnp.int32)
        report = Report(
            position=jnp.asarray(position, jnp.int32),
            num_lines=jnp.asarray(0, jnp.int32),
            train=dict.fromkeys(run.sums, zeros),
            validation=dict.fromkeys(terms, zeros),
            codes={
                name: jnp.zeros((LINES, *value.shape), jnp.float32)
                for name, value in codes.items()
            },
            skipped=counts,
            waited=counts,
        )
        run, position, report = jax.lax.while_loop(
            more_epochs, one_epoch, (run, report.position, report)
        )
        return run, dataclasses.replace(report, position=position)

    return advance


def shuffle(root: jax.Array, epoch: int | jax.Array, num_examples: int) -> jax.Array:
    """The order of the training examples in an epoch, ``(N,)`` int32."""
    key = stream_key(root, Stream.SHUFFLE, epoch)
    return jax.random.permutation(key, num_examples).astype(jnp.int32)


def choose_steps_per_loop(num_batches: int, position: int = 0, chunk: int = 0) -> int:
    """The length of an inner loop: what pays on the backend.

    It divides the epoch's ``num_batches``, the ``position`` a run continues from and
    the steps of a ``chunk``.
    """
    backend = jax.default_backend()
    most = STEPS_PER_LOOP.get(backend, STEPS_PER_LOOP_ELSEWHERE)
    whole = math.gcd(num_batches, position, chunk)
    return max(n for n in range(1, most + 1) if whole % n == 0)


def validation_value(
    objective: Objective, validation: Metrics, monitor: str | None = None
) -> jax.Array:
    """What early stopping compares, a lower value being better.

    Args:
      objective: names the term that is compared and the terms that are maximised.
      validation: means of the terms, weights at the full values of their schedules.
      monitor: a term in place of the objective's own.
    """
    name = objective.monitor if monitor is None else monitor
    value = validation[name]
    return -value if name in objective.maximised else value


def _count(
    run: LoopState, state: TrainState, terms: Metrics, is_used: jax.Array
) -> LoopState:
    """Adds one step to the epoch's sums, and remembers the first that went wrong."""
    finite = jnp.array([jnp.isfinite(term) for term in terms.values()]).all()
    is_bad = (run.bad_step < 0) & is_used & ~finite
    used = {name: jnp.where(is_used, term, 0.0) for name, term in terms.items()}
    return dataclasses.replace(
        run,
        state=state,
        sums={name: run.sums[name] + used[name] for name in run.sums},
        counted=run.counted + is_used,
        bad_step=jnp.where(is_bad, state.step - 1, run.bad_step),
        bad_terms=_where(is_bad, terms, run.bad_terms),
    )


def _improve(best: Best, state: TrainState, value: jax.Array, patience: int) -> Best:
    """The best after an epoch; a run that has waited long enough keeps its own."""
    is_over = best.waited >= patience
    is_better = (value < best.value) & jnp.isfinite(value) & ~is_over
    number = best.epoch + best.waited + 1
    return Best(
        value=jnp.where(is_better, value, best.value),
        epoch=jnp.where(is_better, number, best.epoch),
        waited=jnp.where(is_better, 0, best.waited + ~is_over),
        variables=_where(is_better, state.variables, best.variables),
    )


def _where(condition: jax.Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)


def _all_finite(tree: Any) -> jax.Array:
    # One array and one kernel in place of one for each.
    return jnp.isfinite(ravel_pytree(tree)[0]).all()
