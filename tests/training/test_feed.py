"""Streamed examples: the numbers of resident ones, and each example once an epoch."""

import itertools
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from flaxvae import training
from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.training import Engine, drive, engine, fit, parallel, sweep
from flaxvae.training.feed import Streamed, open_feed
from flaxvae.training.parallel import Devices
from flaxvae.training.storage.stored import read_lines
from tests.training.test_loop import EVERY_CALL, Killed, kill_after, same

BATCH = 32  # 4 steps an epoch: 150 // 32, of 16 bytes an image
HELD_OUT = 23 * 16


@pytest.fixture(autouse=True)
def one_chunk_at_once(monkeypatch):
    """So that more than one batch of so few examples is a chunk."""
    monkeypatch.setattr(training.feed, "CHUNKS_AT_ONCE", 1)


def budget_engine(chunk, **options):
    return Engine(device_memory_budget=HELD_OUT + chunk * 512, **options)


def read_rows(dataset, position, epochs, chunk):
    """The rows of every step from ``position`` on, as a stream gives them."""
    feed = Streamed(
        dataset,
        Devices(),
        seed=5,
        batch_size=BATCH,
        position=position,
        total=4 * epochs,
        chunk=chunk,
    )
    steps = []
    while len(steps) < 4 * epochs - position:
        steps += list(np.asarray(feed.examples[0].x))
        feed.prefetch()
    feed.close()
    return np.stack(steps)[: 4 * epochs - position]


@pytest.fixture(scope="module")
def program(lasting):
    """A training of 12 steps, whose programs all tests share."""
    return lasting(3, early_stopping=9)


@pytest.fixture
def numbered(stripes):
    """Every training image is its number."""
    x = np.arange(150, dtype=np.uint8).reshape(150, 1, 1, 1)
    return Dataset("n", Split(x), Split(x[:0]), Split(x[:0]), 255.0)


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_an_epoch_has_each_example_once_wherever_it_began(numbered, chunk):
    whole = read_rows(numbered, 0, 3, chunk).reshape(3, 4 * BATCH)
    for epoch in whole:
        assert len(np.unique(epoch)) == 4 * BATCH
    assert (whole[0] != whole[1]).any()
    rest = read_rows(numbered, 6, 3, chunk)  # in the middle of the second epoch
    np.testing.assert_array_equal(rest.reshape(-1), whole.reshape(-1)[6 * BATCH :])


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_a_streamed_run_is_the_resident_one(program, chunk, monkeypatch, capsys):
    resident = fit(program, progress=False)
    seen = []
    prefetch = Streamed.prefetch
    monkeypatch.setattr(
        Streamed, "prefetch", lambda self: (seen.append(self.chunk), prefetch(self))[1]
    )
    streamed = fit(program, engine=budget_engine(chunk))
    assert set(seen) == {chunk}
    assert same(streamed.variables, resident.variables)
    assert streamed.history == resident.history
    said = capsys.readouterr().err
    assert "training examples do not fit the device and are streamed" in said


def test_a_streamed_run_killed_within_an_epoch_goes_on(program, tmp_path, monkeypatch):
    whole = fit(program, progress=False)
    one = budget_engine(1, checkpoint_seconds=0.0)
    three = budget_engine(3, checkpoint_seconds=0.0)
    for cut in (one, three, EVERY_CALL):  # the last one has no budget
        with monkeypatch.context() as patch:
            patch.setattr(engine, "FIRST_STEPS", 3)
            kill_after(patch, 1)
            with pytest.raises(Killed):
                fit(program, workdir=tmp_path, engine=cut, progress=False)
    ticks = itertools.count()  # a second for each call, of one step
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))
    monkeypatch.setattr(drive, "time", clock)
    resumed = fit(program, workdir=tmp_path, engine=one, progress=False)
    assert same(whole.variables, resumed.variables)
    assert whole.history == resumed.history
    lines = read_lines(tmp_path / "timing.jsonl")
    # The first epoch that was finished here is as long as the others.
    assert [line["seconds"] for line in lines.values()][-2:] == [4.0, 4.0]


@pytest.mark.parametrize("method", parallel.PARALLEL)
def test_devices_share_a_streamed_batch(program, monkeypatch, method):
    monkeypatch.setattr(parallel, "visible_devices", jax.devices)
    one = fit(program, engine=Engine(devices=1), progress=False)
    many = fit(program, engine=budget_engine(3, parallel=method), progress=False)
    for a, b in zip(many.history, one.history, strict=True):
        assert a["train"]["loss"] == pytest.approx(b["train"]["loss"], rel=1e-4)
    devices = Devices(tuple(jax.devices()), method)
    chunk = devices.put_chunk(np.zeros((3, BATCH, 4, 4, 1), np.uint8), BATCH)
    rows = {shard.data.shape[1] for shard in chunk.addressable_shards}
    assert rows == ({BATCH // 8} if method == "jit" else {BATCH})


def test_the_device_says_what_fits(stripes, monkeypatch):
    options = {"seed": 0, "batch_size": BATCH, "position": 0, "total": 8}
    for memory, chunk in ((2 * 2768, None), (2 * 2767, 4)):
        monkeypatch.setattr(training.feed, "device_memory", lambda m=memory: m)
        with open_feed(stripes, Devices(), **options) as feed:
            assert feed.chunk == chunk


def test_a_budget_that_nothing_fits_is_refused(vae, stripes):
    tight = Engine(device_memory_budget=HELD_OUT + 511)
    with pytest.raises(InputError, match="must be >= 880, the bytes of the valid"):
        fit(vae, stripes, batch_size=BATCH, engine=tight, progress=False)
    with pytest.raises(InputError, match="device_memory_budget must be > 0, got 0"):
        fit(vae, stripes, engine=Engine(device_memory_budget=0), progress=False)


def test_a_sweep_says_that_it_does_not_stream(vae, stripes):
    with pytest.raises(InputError, match="memory_limit must be >= 2768, the bytes of"):
        sweep(lambda: vae, stripes, {"seed": [0]}, batch_size=BATCH, memory_limit=2000)
