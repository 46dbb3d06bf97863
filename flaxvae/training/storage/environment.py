"""Versions, device and memory, as recorded with a run."""

import math
import os
import platform
import shutil
import sys
import warnings
from importlib import metadata
from pathlib import Path

import jax

from flaxvae.files import cache_folder
from flaxvae.types import Json

LEAST_CACHE_BYTES = 2**20  # free on its disk, of the order of a program
PACKAGES = ("flaxvae", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def describe_environment() -> dict[str, Json]:
    """Versions and the device, for ``config.json``."""
    return {
        "versions": {"python": platform.python_version(), **describe_versions()},
        "device": device_name(),
        "platform": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """The versions of flaxvae and of the packages whose versions change a run."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def use_compilation_cache(folder: Path | None = None) -> None:
    """Keeps compiled programs on disk, so that the next start need not compile.

    JAX identifies a program by its text, its options and its own version. A folder that
    JAX already uses (``$JAX_COMPILATION_CACHE_DIR``) is kept.

    Args:
      folder: None: ``compiled`` in flaxvae's cache folder.
    """
    # A cache that is full or damaged costs time, and is worth no lines of JAX's.
    for what in ("writing", "reading"):
        warnings.filterwarnings("ignore", f"Error {what} persistent compilation cache")
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    path = folder or cache_folder() / "compiled"
    try:
        path.mkdir(parents=True, exist_ok=True)
        is_full = shutil.disk_usage(path).free < LEAST_CACHE_BYTES
        problem = "the disk is full" if is_full else ""
        problem = problem if os.access(path, os.W_OK) else "it cannot be written"
    except OSError as error:
        problem = str(error.strerror)
    if problem:
        note = f"NOTE: compiled programs are not kept in {path}: {problem}"
        print(note, file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(path))
    # Store whatever took a tenth of a second to compile, however small it is.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def device_name() -> str:
    """The kind of the device that trains, such as ``"cpu"`` or ``"NVIDIA H200"``."""
    return jax.devices()[0].device_kind


def device_memory() -> float:
    """Bytes of a device: its own, or its share of the machine's if it is a CPU."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    if not hasattr(os, "sysconf"):  # not a POSIX system
        return math.inf
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return machine / jax.local_device_count()


def peak_memory() -> int | None:
    """Most bytes that were in use at once: of the first device, else of the process.

    None where neither is known.
    """
    stats = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    return peak_resident_memory()


def peak_resident_memory() -> int | None:
    """Most bytes of memory that this process has held; None where this is not known."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, where a process inherits what `getrusage` says
        for line in status.read_bytes().splitlines():
            if line.startswith(b"VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
