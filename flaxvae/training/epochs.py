"""Training as one compiled program: any number of steps and epochs in one call.

Shuffling, preprocessing, validation, early stopping and the best parameters are inside,
so the host only says how far to go. Where a call ends changes no result. Examples that
do not fit the device come in chunks, shuffled by the host in the same order.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar, cast

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from flaxvae.batch import Batch, as_batch
from flaxvae.collectives import mean_over_devices
from flaxvae.objectives.objective import Objective
from flaxvae.schedules import Clock
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimization import Optimization
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.state import Best, LoopState, Metrics, TrainState

LINES = 256  # epochs that one call can report
# Steps in one loop of fixed length. On a CPU and a TPU a loop of any length is free; a
# GPU waits for the host before each round of a loop whose length it does not know.
STEPS_PER_LOOP = {"cpu": 1, "tpu": 1}
STEPS_PER_LOOP_ELSEWHERE = 32

Stored = Batch[jax.Array] | jax.Array  # examples as they are stored, ``(N, ...)``
# The training split, or a chunk of its batches, and the validation split.
Examples = tuple[Stored, Stored]
Position = jax.Array  # () int32, steps done in all
T = TypeVar("T")
Mean = TypeVar("Mean", jax.Array, float)


@flax.struct.dataclass
class Report:
    """What one call tells the host."""

    position: Position
    num_lines: jax.Array  # () int32, epochs finished in this call
    train: Metrics  # means of the terms, (LINES,) each
    validation: Metrics  # the same on the validation split; empty without one
    codes: Metrics  # see `describe_codes`, (LINES, ...) each; of the same split
    skipped: jax.Array  # (LINES,) int32, updates left out
    waited: jax.Array  # (LINES,) int32, see `Best`


@dataclass(frozen=True)
class Layout:
    """How `run_epochs` is compiled; no number depends on it.

    Attributes:
      devices: who shares each batch.
      steps_per_loop: steps in one loop of fixed length; divides the steps of an epoch
        and of a chunk, and every position that a call begins at. See
        `choose_steps_per_loop`.
      chunk: the examples are not the training split but the batches of so many steps,
        ``(chunk, B, ...)``, beginning with the batch at the call's position.
      halt: whether to stop at a non-finite number and when nothing better was found
        for long. Many runs mapped over one program go on together; then a run that is
        over keeps its best variables, and its host drops the later lines.
    """

    devices: Devices = ONE_DEVICE
    steps_per_loop: int = 1
    chunk: int | None = None
    halt: bool = True


PLAIN = Layout()


class Steps(Protocol):
    """What the program needs of a `flaxvae.training.Training`."""

    @property
    def num_examples(self) -> int:
        """Number of training examples, N."""

    @property
    def batch_size(self) -> int:
        """Examples in a step, B, at most N."""

    @property
    def optimization(self) -> Optimization:
        """Early stopping and what it compares."""

    @property
    def clock(self) -> Clock:
        """Steps of an epoch."""

    @property
    def has_validation(self) -> bool:
        """Whether an epoch ends with `validate`."""

    def step(self, state: TrainState, batch: Stored) -> tuple[TrainState, Metrics]:
        """One train step on a stored batch."""

    def validate(
        self, state: TrainState, examples: Stored, devices: Devices
    ) -> tuple[Metrics, Metrics]:
        """The terms on stored examples, and how the codes are used."""


def run_epochs(
    training: Steps,
    run: LoopState,
    examples: Examples,
    position: Position,
    until: Position,
    layout: Layout,
) -> tuple[LoopState, Report]:
    """The run ``until`` so many steps, at most `LINES` epochs and a chunk later.

    The examples are shuffled by a key that depends on the root key and the epoch's
    number alone, and cut into full batches; the remainder, different in each epoch, is
    left out. After an epoch's last step the run is validated.

    Args:
      training: its steps.
      run: a run that has taken ``position`` steps.
      examples: of both splits, as they are stored.
      position: steps done.
      until: steps to do in all; the last loop of fixed length is finished.
      layout: see `Layout`.
    """
    call = _Call(training, layout, examples, position, until)
    report = call.begin_report(run)
    run, position, report = jax.lax.while_loop(
        call.has_more_epochs, call.epoch, (run, report.position, report)
    )
    return run, dataclasses.replace(report, position=position)


@dataclass(frozen=True, eq=False)
class _Call:
    """One call of `run_epochs`: what stays the same in all of its loops."""

    training: Steps
    layout: Layout
    examples: Examples
    first: Position
    until: Position

    def begin_report(self, run: LoopState) -> Report:
        """A report without lines."""
        terms: Metrics = {}
        codes: Metrics = {}
        if self.training.has_validation:
            terms, codes = jax.eval_shape(self.validate, run.state)
        zeros = jnp.zeros(LINES, jnp.float32)
        counts = jnp.zeros(LINES, jnp.int32)
        return Report(
            position=jnp.asarray(self.first, jnp.int32),
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

    def goes_on(self, run: LoopState) -> jax.Array | bool:
        """Whether nothing has ended the run early."""
        if not self.layout.halt:
            return True
        is_over = run.bad_step >= 0
        patience = self.training.optimization.early_stopping
        if run.best is not None and patience is not None:
            is_over |= run.best.waited >= patience
        return ~is_over

    def has_more_epochs(self, carry: tuple[LoopState, Position, Report]) -> jax.Array:
        """Whether another epoch, or the rest of one, belongs to this call."""
        run, position, report = carry
        is_short = position < self.until
        return is_short & self.goes_on(run) & (report.num_lines < LINES)

    def epoch(
        self, carry: tuple[LoopState, Position, Report]
    ) -> tuple[LoopState, Position, Report]:
        """The steps of an epoch, or some of them; after the last one its line."""
        run, position, report = carry
        num_batches = self.training.clock.steps_per_epoch
        number = position // num_batches
        order = None
        if self.layout.chunk is None:
            order = shuffle(run.state.key, number, self.training.num_examples)
        end = (number + 1) * num_batches
        stop = jnp.minimum(end, self.until)
        run, position = jax.lax.while_loop(
            lambda carry: (carry[1] < stop) & self.goes_on(carry[0]),
            functools.partial(self.steps, number, order),
            (run, position),
        )
        is_over = (position == end) & self.goes_on(run)
        run, report = jax.lax.cond(
            is_over, self.finish_epoch, lambda *same: same, run, report
        )
        return run, position, report

    def steps(
        self,
        number: jax.Array,
        order: jax.Array | None,
        carry: tuple[LoopState, Position],
    ) -> tuple[LoopState, Position]:
        """One loop of fixed length in epoch ``number`` (from 0)."""
        run, position = carry
        count, B = self.layout.steps_per_loop, self.training.batch_size
        if order is None:
            start = position - self.first
            batches = jax.tree.map(
                lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, count),
                self.examples[0],
            )
        else:
            start = (position - number * self.training.clock.steps_per_epoch) * B
            rows = jax.lax.dynamic_slice(order, (start,), (count * B,))
            batches = rows.reshape(count, B)  # (count, B)
        run, _ = jax.lax.scan(self.step, run, batches)
        return run, position + count

    def step(self, run: LoopState, batch: Stored) -> tuple[LoopState, None]:
        """One step on the rows of a batch, or on the batch itself."""
        before, devices = run.state.skipped, self.layout.devices
        if self.layout.chunk is None:
            rows = devices.split(cast(jax.Array, batch))
            batch = jax.tree.map(lambda leaf: leaf[rows], self.examples[0])
        else:
            batch = jax.tree.map(devices.own_part, batch)
        state, terms = self.training.step(run.state, batch)
        weight = as_batch(batch).weight
        if run.weight is not None and weight is not None:
            mean = mean_over_devices(jnp.mean(weight))
            used = jnp.where(state.skipped == before, mean, 0.0)
            run = dataclasses.replace(run, weight=run.weight + used)
        return _count(run, state, terms, is_used=state.skipped == before), None

    def validate(self, state: TrainState) -> tuple[Metrics, Metrics]:
        """`Steps.validate` on the validation split."""
        return self.training.validate(state, self.examples[1], self.layout.devices)

    def finish_epoch(self, run: LoopState, report: Report) -> tuple[LoopState, Report]:
        """Writes the epoch's line, and begins the sums of the next one."""
        run, train, validation, codes = self.close_epoch(run)
        i = report.num_lines
        waited = 0 if run.best is None else run.best.waited

        def write(lines: T, line: T | int | jax.Array) -> T:
            # Compiled sooner than `lines.at[i].set`, which is a loop on a CPU.
            written: T = jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_index_in_dim(
                    old, jnp.asarray(new, old.dtype), i, 0
                ),
                lines,
                line,
            )
            return written

        steps = self.training.clock.steps_per_epoch
        report = dataclasses.replace(
            report,
            num_lines=i + 1,
            train=write(report.train, train),
            validation=write(report.validation, validation),
            codes=write(report.codes, codes),
            skipped=write(report.skipped, steps - run.counted),
            waited=write(report.waited, waited),
        )
        begun = (run.sums, run.counted, run.weight)
        sums, counted, weight = jax.tree.map(jnp.zeros_like, begun)
        run = dataclasses.replace(run, sums=sums, counted=counted, weight=weight)
        return run, report

    def close_epoch(
        self, run: LoopState
    ) -> tuple[LoopState, Metrics, Metrics, Metrics]:
        """Means over the epoch, validation, and what follows from it."""
        counted: jax.Array = jnp.maximum(run.counted, 1)
        if run.weight is not None:
            counted = jnp.where(run.weight > 0, run.weight, counted)
        train = {name: total / counted for name, total in run.sums.items()}
        validation: Metrics = {}
        codes: Metrics = {}
        if self.training.has_validation:
            validation, codes = self.validate(run.state)
        # Skipped to the last step, or broken by the last update: a bad end.
        is_fine = _all_finite(run.state.params) & (run.counted > 0)
        is_bad = (run.bad_step < 0) & ~is_fine
        bad_step = jnp.where(is_bad, run.state.step - 1, run.bad_step)
        bad_terms = _where(is_bad, train, run.bad_terms)
        best, chosen = run.best, self.training.optimization
        if best is not None and chosen.early_stopping is not None:
            value = validation_value(run.state.objective, validation, chosen.monitor)
            best = _improve(best, run.state, value, chosen.early_stopping)
        run = dataclasses.replace(
            run, bad_step=bad_step, bad_terms=bad_terms, best=best
        )
        return run, train, validation, codes


def shuffle(root: jax.Array, epoch: int | jax.Array, num_examples: int) -> jax.Array:
    """The order of the training examples in an epoch, ``(N,)`` int32."""
    key = stream_key(root, Stream.SHUFFLE, epoch)
    return jax.random.permutation(key, num_examples).astype(jnp.int32)


def choose_steps_per_loop(num_batches: int, position: int = 0, chunk: int = 0) -> int:
    """The length of an inner loop: what pays on the backend.

    It divides the epoch's ``num_batches``, the ``position`` a run continues from and
    the steps of a ``chunk``. A run stops within such a loop only under another backend,
    or under another version.
    """
    backend = jax.default_backend()
    most = STEPS_PER_LOOP.get(backend, STEPS_PER_LOOP_ELSEWHERE)
    whole = math.gcd(num_batches, position, chunk)
    return max(n for n in range(1, most + 1) if whole % n == 0)


def validation_value(
    objective: Objective, validation: Mapping[str, Mean], monitor: str | None = None
) -> Mean:
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


def _where(condition: jax.Array, a: T, b: T) -> T:
    chosen: T = jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
    return chosen


def _all_finite(params: optax.Params) -> jax.Array:
    # One array, not one kernel for each; a sum compiles sooner than a conjunction.
    return jnp.isfinite(jnp.sum(0.0 * ravel_pytree(params)[0]))
