"""The hash behind `jax.random`: published values, and the same bits at any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.export import export, symbolic_shape

from flaxvae.threefry import FEW, GROUPS, hash_counters

# Random123's kat_vectors, threefry2x32 of 20 rounds: counters, keys and bits.
KNOWN = (
    ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
    ((2**32 - 1,) * 2, (2**32 - 1,) * 2, (0x1CB996FC, 0xBB002BE7)),
    ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
)


@pytest.mark.parametrize("size", [1, FEW, FEW + 1], ids=["one", "few", "many"])
def test_published_bits(size):
    counters, keys, bits = np.asarray(KNOWN, np.uint32).transpose(1, 2, 0)  # (2, 3)
    rows = np.resize(np.arange(len(KNOWN)), size)
    for row in (rows, rows[::-1]):
        found = jax.jit(hash_counters)(*keys[:, row], *counters[:, row])
        assert np.array_equal(found, bits[:, row])


def test_many_keys_and_one_counter():
    counters, keys, bits = np.asarray(KNOWN, np.uint32).transpose(1, 2, 0)  # (2, 3)
    for row in range(len(KNOWN)):
        one = counters[:, row : row + 1]
        found = jax.jit(hash_counters)(*keys, *one)
        assert np.array_equal(np.stack(found)[:, row], bits[:, row])


def test_jax_draws_its_bits_by_it(key):
    def draw(key):
        return jax.random.bits(key, (FEW + 1,))

    lowered = jax.jit(draw).lower(key)
    assert 'inlineable = "false"' in lowered.as_text()
    key_1, key_2 = jax.random.key_data(key)
    counters = jnp.arange(FEW + 1, dtype=jnp.uint32)
    x, y = hash_counters(key_1, key_2, 0 * counters, counters)
    assert np.array_equal(lowered.compile()(key), x ^ y)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (FEW + 1,), (3, 2, 5)], ids=str)
def test_numbers_are_those_of_jax_itself(key, shape):
    def draw(key):
        return jax.random.bits(key, shape)

    keys = jax.random.split(key, (2, 3))
    drawn = jax.jit(jax.vmap(jax.vmap(draw)))(keys)
    assert drawn.dtype == jnp.uint32
    # Without a compiled program around it, a draw is JAX's own function.
    for i, j in np.ndindex(keys.shape):
        assert np.array_equal(drawn[i, j], draw(keys[i, j]))
        assert np.array_equal(jax.jit(draw)(keys[i, j]), drawn[i, j])


def test_a_number_is_computed_once(key):
    program = jax.jit(lambda key: jax.random.bits(key, (1000,))).lower(key).compile()
    rounds = program.as_text().count(" shift-left(")
    assert rounds == GROUPS * 4


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_other_widths_and_generators_are_jaxs(impl, bits):
    key = jax.random.key(3, impl=impl)

    def draw(key):
        return jax.random.bits(key, (5, 7), dtype=f"uint{bits}")

    assert np.array_equal(jax.jit(draw)(key), draw(key))


def test_counters_of_the_older_kind_are_jaxs(key):
    def draw(key):
        return jax.random.bits(key, (5, 7))

    newer = draw(key)
    with jax.threefry_partitionable(False):
        older = jax.jit(draw)(key)
        assert np.array_equal(older, draw(key))
    assert not np.array_equal(older, newer)


def test_devices_that_share_keys_draw_the_same(key):
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    spread = jax.sharding.PartitionSpec("data")

    def draw(keys):
        return jax.vmap(lambda key: jax.random.bits(key, (9,)))(keys)

    keys = jax.random.split(key, 4)
    each = jax.device_put(keys, jax.sharding.NamedSharding(mesh, spread))
    shared = jax.shard_map(draw, mesh=mesh, in_specs=spread, out_specs=spread)
    for program in (shared, draw):
        assert np.array_equal(jax.jit(program)(each), draw(keys))


def test_numbers_of_draws_that_are_known_later(key):
    def draw(x):
        return x + jax.random.normal(key, x.shape)

    (rows,) = symbolic_shape("n")
    like = jax.ShapeDtypeStruct((rows, 3), jnp.float32)
    exported = export(jax.jit(draw))(like)
    for n in (1, 50):
        x = jnp.zeros((n, 3))
        assert np.array_equal(exported.call(x), jax.jit(draw)(x))
