"""The machine that the benchmark runs on: its speed, its versions, its precision.

PyTorch is imported inside the functions, after a process has chosen its threads.
"""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from flaxvae.training.storage.environment import peak_memory, peak_resident_memory

# Rows and columns of the product that measures the machine; its factors are random,
# since zeros and ones take less power on a GPU, which then computes faster.
MATMUL_SIZE = 4096
MATMUL_SECONDS = 1.0


def measure_jax_matmul(precision: str) -> float:
    """Rate of a large matrix product in JAX, in FLOP/s.

    The result is float32, as that of all products in bfloat16 networks.
    """
    import jax
    import jax.numpy as jnp

    set_jax_precision(precision)
    dtype = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    a = jax.random.normal(jax.random.key(0), (MATMUL_SIZE, MATMUL_SIZE), dtype)
    product = jax.jit(lambda a, b: jnp.matmul(a, b, preferred_element_type="float32"))
    return _measure_rate(lambda: jax.block_until_ready(product(a, a)))


def measure_torch_matmul(precision: str, threads: int) -> float:
    """Rate of a large matrix product in PyTorch, in FLOP/s."""
    import torch

    torch.set_num_threads(threads)
    set_torch_precision(precision)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a = torch.randn((MATMUL_SIZE, MATMUL_SIZE), dtype=dtype, device=device)
    return _measure_rate(lambda: (a @ a)[0, 0].item())


def _measure_rate(product: Callable[[], Any]) -> float:
    product()
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < MATMUL_SECONDS:
        product()
        count += 1
    return count * 2 * MATMUL_SIZE**3 / elapsed


def describe_machine() -> dict[str, Any]:
    """Versions, the processor and the device that trains."""
    import platform

    import torch

    from flaxvae.training.storage.environment import describe_environment

    described: dict[str, Any] = {**describe_environment()}
    described["versions"] |= {"torch": torch.__version__}
    described["processor"] = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if "model name" in line]
        described["processor"] = names[0].split(":")[1].strip() if names else "unknown"
    described["gpu"] = is_on_gpu()
    return described


def is_on_gpu() -> bool:
    """Whether JAX trains on a GPU."""
    import jax

    return jax.default_backend() == "gpu"


def set_jax_precision(precision: str) -> None:
    """Sets the precision of every matrix product of this process in JAX.

    Args:
      precision: ``float32``, ``tf32`` or ``bfloat16``.
    """
    import jax

    value = {"float32": "highest", "tf32": "tensorfloat32"}.get(precision, "default")
    jax.config.update("jax_default_matmul_precision", value)


def set_torch_precision(precision: str) -> None:
    """The same for PyTorch."""
    import torch

    allowed = precision != "float32"
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed


def torch_precision(precision: str, device: str) -> AbstractContextManager[None]:
    """A context in which PyTorch computes in bfloat16 if ``precision`` says so."""
    import torch

    context: AbstractContextManager[None] = torch.autocast(
        device, torch.bfloat16, enabled=precision == "bfloat16"
    )
    return context


def begin_memory() -> int:
    """Bytes that this process holds; on Linux its largest memory counts from here.

    On other systems the result is the largest memory so far.
    """
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return peak_resident_memory() or 0


def used_memory(before: int) -> int:
    """Most bytes that this process has held beyond those ``before``."""
    return (peak_resident_memory() or 0) - before


def used_by_jax(before: int) -> int:
    """The largest memory of a training in JAX: of the GPU, or as `used_memory`."""
    return (peak_memory() or 0) if is_on_gpu() else used_memory(before)
