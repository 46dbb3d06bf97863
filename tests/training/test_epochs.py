"""The whole training in one program, against a plain Python loop."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flaxvae.objectives import ELBO
from flaxvae.schedules import Clock
from flaxvae.training import Optimization, Training, epochs
from flaxvae.training.epochs import PLAIN, Layout, run_epochs
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimizers import adam
from flaxvae.training.state import TrainState, create_loop_state
from flaxvae.training.step import train_step

STEPS = 4  # 150 // 32


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def close(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def examples_of(dataset):
    return jnp.asarray(dataset.train.x), jnp.asarray(dataset.validation.x)


def program(vae, dataset, optimizer=None, layout=PLAIN, **options):
    training = Training(
        vae,
        dataset,
        ELBO(),
        Optimization(batch_size=32, **options),
        optimizer or adam(1e-2),
    )
    return training.init(0), jax.jit(functools.partial(training.epochs, layout=layout))


@pytest.fixture(scope="module")
def plain(vae, stripes):
    return program(vae, stripes)


def test_epochs_in_one_call_are_a_python_loop(vae, stripes, plain):
    run, advance = plain
    x, held_out = examples_of(stripes)
    by_call, report = advance(run, (x, held_out), 0, 2 * STEPS)

    preprocess = stripes.preprocessing
    step = jax.jit(functools.partial(train_step, vae, adam(1e-2), preprocess))
    evaluate = jax.jit(make_evaluate(vae, preprocess))
    permute = jax.jit(lambda key: jax.random.permutation(key, len(x)))
    state = run.state
    for number in range(2):
        key = stream_key(state.key, Stream.SHUFFLE, number)
        order = permute(key)
        losses = []
        for i in range(STEPS):
            state, terms = step(state, x[order[32 * i : 32 * (i + 1)]])
            losses.append(terms["loss"])
        np.testing.assert_allclose(
            report.train["loss"][number], np.mean(losses), rtol=1e-5
        )
        key = stream_key(state.key, Stream.VALIDATION)
        expected = evaluate(state.variables, ELBO(), held_out, key)
        for name in ("loss", "elbo", "kl", "log_likelihood"):
            np.testing.assert_allclose(
                report.validation[name][number], expected[name], rtol=1e-4
            )
    assert report.num_lines == 2
    assert by_call.state.step == state.step == report.position == 2 * STEPS
    for a, b in zip(
        jax.tree.leaves(by_call.state.params),
        jax.tree.leaves(state.params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.fixture(scope="module")
def whole(vae, stripes):
    """The start of a run, its program, and what that gives in one call."""
    run, advance = program(vae, stripes, early_stopping=100, ema_decay=0.9)
    return run, advance, *advance(run, examples_of(stripes), 0, 3 * STEPS)


@pytest.mark.parametrize("stops", [[12], [4, 8, 12], [1, 2, 3, 7, 12], [5, 6, 11, 12]])
def test_where_calls_end_changes_nothing(stripes, whole, stops):
    """Not one bit of parameters, optimizer, means or best."""
    run, advance, expected, report = whole
    examples = examples_of(stripes)
    lines, position = [], 0
    for stop in stops:
        run, part = advance(run, examples, position, stop)
        lines += [part.train["loss"][i] for i in range(int(part.num_lines))]
        position = int(part.position)
        assert position == stop
    same(run, expected)
    np.testing.assert_array_equal(lines, report.train["loss"][:3])


def test_loops_of_fixed_length_change_nothing(vae, stripes, plain, monkeypatch):
    examples = examples_of(stripes)
    run, advance_1 = plain
    one, _ = advance_1(run, examples, 0, 2 * STEPS)
    monkeypatch.setattr(epochs, "STEPS_PER_LOOP", {})
    assert epochs.choose_steps_per_loop(STEPS) == 4
    assert epochs.choose_steps_per_loop(STEPS, position=2) == 2
    assert epochs.choose_steps_per_loop(70) == 14
    _, advance_4 = program(vae, stripes, layout=Layout(steps_per_loop=4))
    four, report = advance_4(run, examples, 0, 2 * STEPS)
    assert report.num_lines == 2
    for a, b in zip(
        jax.tree.leaves(one.state.params),
        jax.tree.leaves(four.state.params),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=1e-6)


@dataclasses.dataclass
class Remembering:
    """A training whose step only adds up what it has seen of each example."""

    num_examples: int
    batch_size: int
    has_validation = False
    optimization = Optimization()

    @property
    def clock(self):
        return Clock.of(self.num_examples, self.batch_size)

    def step(self, state, batch):
        epoch = state.step // self.clock.steps_per_epoch
        seen = state.params.at[epoch, batch].add(1)
        return state.replace(step=state.step + 1, params=seen), {"loss": jnp.zeros(())}

    def init(self):
        zero = jnp.asarray(0, jnp.int32)
        seen = jnp.zeros((2, self.num_examples))
        state = TrainState(zero, seen, {}, {}, ELBO(), jax.random.key(3), zero)
        return create_loop_state(state, {"loss": 0.0}, early_stopping=False)


def test_every_example_at_most_once_and_others_left_out_each_epoch():
    training = Remembering(10, 3)
    numbers = jnp.arange(10)
    examples = numbers, numbers[:0]
    run, _ = run_epochs(training, training.init(), examples, 0, 6, PLAIN)
    seen = np.asarray(run.state.params)
    assert (seen.sum(axis=1) == 9).all()
    assert (seen <= 1).all()
    assert (seen[0] != seen[1]).any()


def test_one_trace_of_the_step_for_any_number_of_epochs_of_a_donated_run(vae, bare):
    traces = []

    class Counted(Training):
        def step(self, state, batch):
            traces.append(1)
            return super().step(state, batch)

    training = Counted(vae, bare, ELBO(), Optimization(batch_size=32))
    run = training.init(0)
    kernel = run.state.params["decoder"]["output"]["kernel"]
    traces.clear()
    advance = jax.jit(training.epochs, donate_argnums=0)
    position = 0
    for count in (1, 3, 1):
        until = position + count * STEPS
        run, _ = advance(run, examples_of(bare), position, until)
        position = until
        assert kernel.is_deleted()
    assert len(traces) <= 2  # a while loop's body may be traced twice, never more
    assert run.state.step == 5 * STEPS


@pytest.fixture(scope="module")
def wrong_way():
    """An optimizer that goes up in epochs 3 to 5, so that the second is the best."""

    def rate(step):
        going_up = (step >= 2 * STEPS) & (step < 5 * STEPS)
        return jnp.where(going_up, -1e-2, 1e-2)

    return optax.adam(rate)


@pytest.fixture(scope="module")
def halting(vae, stripes, wrong_way):
    return program(vae, stripes, wrong_way, early_stopping=3)


def test_early_stopping_waits_and_keeps_the_best(stripes, halting):
    run, advance = halting
    examples = examples_of(stripes)
    two, _ = advance(run, examples, 0, 2 * STEPS)
    run, report = advance(run, examples, 0, 20 * STEPS)
    assert report.num_lines == 5
    assert report.position == 5 * STEPS
    assert run.best.epoch == 2
    np.testing.assert_array_equal(report.waited[:5], [0, 0, 1, 2, 3])
    same(run.best.variables, two.state.variables)
    same(run.variables, two.state.variables)
    assert run.best.value == -report.validation["elbo"][1]
    assert run.best.value == (-report.validation["elbo"][:5]).min()


def test_runs_that_go_on_together_keep_their_best(vae, stripes, wrong_way, halting):
    """Without halting, what comes after the end changes nothing."""
    examples = examples_of(stripes)
    run, advance = halting
    halted, _ = advance(run, examples, 0, 30 * STEPS)
    run, going_on = program(
        vae, stripes, wrong_way, early_stopping=3, layout=Layout(halt=False)
    )
    gone_on, report = going_on(run, examples, 0, 30 * STEPS)
    assert report.num_lines == 30
    # It would have improved on the best in the end.
    assert -report.validation["elbo"][29] < halted.best.value
    same(gone_on.best, halted.best)


def test_the_first_non_finite_step_is_remembered(vae, bare):
    def rate(step):
        return jnp.where(step == 5, jnp.nan, 1e-3)

    run, advance = program(vae, bare, optax.sgd(rate))
    run, report = advance(run, examples_of(bare), 0, 20 * STEPS)
    assert run.bad_step == 6
    assert not jnp.isfinite(run.bad_terms["loss"])
    assert report.num_lines == 1
    assert report.position <= 7


def test_means_leave_skipped_steps_out(vae, bare):
    """Each epoch one image of 150 gives an infinite loss; its step is skipped."""
    poisoned = np.array(bare.train.x)
    poisoned[7, 0, 0, 0] = 255

    def picky(vae, x, *, key):
        terms = ELBO()(vae, x, key=key)
        bad = x[:, 0, 0, 0] == 1.0
        loss = jnp.where(bad, jnp.inf, terms["loss"])
        return terms | {"loss": loss, "one": jnp.ones(len(x))}

    data = dataclasses.replace(bare, train=dataclasses.replace(bare.train, x=poisoned))
    assert (poisoned[:, 0, 0, 0] == 255).sum() == 1
    training = Training(
        vae,
        data,
        picky,
        Optimization(batch_size=32, skip_above=float("inf")),
        adam(1e-2),
    )
    advance = jax.jit(training.epochs)
    run, report = advance(training.init(0), examples_of(data), 0, 5 * STEPS)
    assert report.num_lines == 5
    assert 3 <= run.state.skipped <= 5  # the image may be among the left out
    assert report.skipped[:5].sum() == run.state.skipped
    assert report.skipped[:5].max() == 1
    assert jnp.isfinite(report.train["loss"][:5]).all()
    np.testing.assert_allclose(report.train["one"][:5], 1.0)
    assert run.state.step == 5 * STEPS
    assert run.bad_step == -1
