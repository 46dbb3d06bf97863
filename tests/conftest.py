"""Strict JAX, several CPU devices, and folders of the tests' own."""

import gc
import itertools
import os
import threading

import jax
import numpy as np
import pytest
from jax._src.interpreters import mlir

from flaxvae.compiler import SPEED_PASSES
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.training import parallel


def share_contexts() -> None:
    """Ten programs of a thread share a context of MLIR, as in JAX 0.11.

    Its dialects take longer to load than a small program to be lowered.
    """
    make, local = mlir.make_ir_context, threading.local()

    def shared():
        uses = getattr(local, "uses", 0)
        if uses % 10 == 0:
            local.context = make()
        local.uses = uses + 1
        return local.context

    mlir.make_ir_context = shared


jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)
# XLA takes almost half of the tests' time: compile lightly, here and in subprocesses.
# Flags that a version does not know end the process, hence the bound.
if jax.__version_info__ < (0, 11):
    os.environ["XLA_FLAGS"] += (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        f" --xla_disable_hlo_passes={','.join(SPEED_PASSES)}"
    )
    share_contexts()
COARSE = 1 / 3  # of a figure's pixels along each side, see `coarse`
gc.set_threshold(100_000, 20, 20)  # tracing makes many objects, and few cycles
# On accelerators the default rounds the factors of a matrix product.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """Compile once and lightly, in all workers and subprocesses.

    A folder in ``JAX_COMPILATION_CACHE_DIR`` keeps the programs for the next session.
    """
    base = tmp_path_factory.getbasetemp()
    is_worker = "PYTEST_XDIST_WORKER" in os.environ  # all share one folder
    folder = str((base.parent if is_worker else base) / "compiled")
    options = {
        "jax_compilation_cache_dir": jax.config.jax_compilation_cache_dir or folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_disable_most_optimizations": True,
        "jax_traceback_in_locations_limit": 0,  # of each operation in a program
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in options.items():
            jax.config.update(name, value)
            patch.setenv(name.upper(), str(value))
        yield


MODULES = itertools.count(1)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Forget compiled programs now and then: each takes megabytes, and is on disk."""
    yield
    if next(MODULES) % 8 == 0:
        jax.clear_caches()


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(20131220)


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    """No test reads or writes the user's caches."""
    monkeypatch.setenv("FLAXVAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """A run uses one device, unless a test is about several."""
    monkeypatch.setattr(parallel, "visible_devices", lambda: jax.devices()[:1])


@pytest.fixture
def coarse(monkeypatch):
    """Figures are saved with fewer pixels, which take most of the time."""
    from flaxvae.latent.figures import style  # few tests need matplotlib

    monkeypatch.setattr(style, "DPI", COARSE * style.DPI)


@pytest.fixture(scope="session")
def stripes() -> Dataset:
    """210 images of 4x4 pixels: a bright row or column, in eight classes."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 210)
    x = rng.integers(0, 40, (210, 4, 4, 1))
    for image, label in zip(x, labels, strict=True):
        if label < 4:
            image[label] += 200
        else:
            image[:, label - 4] += 200
    split = Split(x.astype(np.uint8), labels)
    return Dataset(
        "stripes",
        train=split[:150],
        validation=split[150:173],
        test=split[173:],
        preprocessing=Preprocessing(max_value=255.0),
        class_names=tuple("01234567"),
    )
