"""Options of XLA: those of the user stay, and numbers stay."""

import os

import jax
import numpy as np
import pytest

from flaxvae.compiler import NO_UNROLLING, install, light_options, lightest_options

OWN = f"--xla_backend_extra_options={NO_UNROLLING}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, OWN),
        ("", OWN),
        ("--xla_dump_to=a ", f"--xla_dump_to=a {OWN}"),
        ("--xla_backend_extra_options=other=1", "--xla_backend_extra_options=other=1"),
        ("flags.txt", "flags.txt"),
    ],
    ids=["unset", "empty", "more", "own", "file"],
)
def test_loops_are_not_unrolled(before, after, monkeypatch):
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    if before is not None:
        monkeypatch.setenv("XLA_FLAGS", before)
    install()
    install()
    assert os.environ["XLA_FLAGS"] == after


def test_importing_the_library_installs_them():
    assert OWN in os.environ["XLA_FLAGS"]


@pytest.mark.parametrize("choose", [light_options, lightest_options])
def test_light_programs_compute_the_same(choose, key):
    def draw(key):
        return jax.random.normal(key, (100, 4)) @ np.ones((4, 2), np.float32)

    assert choose() == {}  # the tests ask for less
    expected = jax.jit(draw)(key)
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        options = choose()
    finally:
        jax.config.update("jax_disable_most_optimizations", True)
    assert options.get("xla_backend_optimization_level", 0) < 2
    found = jax.jit(draw, compiler_options=options)(key)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
