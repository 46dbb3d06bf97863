"""TPU slices that exist on paper, and the vendor's figures of their chips."""

import importlib.util
import os
import re
from dataclasses import dataclass
from typing import Any

import jax

from flaxvae.checks import InputError
from flaxvae.training.parallel import Devices

# Without these libtpu looks for a TPU and its metadata server, and reports that it
# found none; the last one lets several processes compile at the same time.
ENVIRONMENT = {
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",  # any: the topology is named separately
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}
# The largest slice of each generation, in chips along each side. What is larger, or has
# a third side where chips are wired in two, libtpu may accept, and then abort.
LARGEST = {
    "v2": (16, 16),
    "v3": (32, 32),
    "v4": (16, 16, 16),
    "v5": (16, 20, 28),  # libtpu's other name of v5p
    "v5e": (16, 16),
    "v5p": (16, 20, 28),
    "v6e": (16, 16),
}
EXAMPLES = ("v4:2x2x1", "v5e:2x2", "v5e:4x4", "v5p:2x2x1", "v6e:4x4")


@dataclass(frozen=True)
class Chip:
    """A kind of TPU: its vendor's figures for one chip.

    Attributes:
      flops: bf16 FLOP/s.
      memory: bytes of HBM.
      bandwidth: bytes/s from and to HBM.
      interconnect: bytes/s to other chips, all links together.
    """

    flops: float
    memory: float
    bandwidth: float
    interconnect: float


# The keys are JAX's names of the devices.
CHIPS = {
    "TPU v4": Chip(275e12, 32e9, 1228e9, 300e9),
    "TPU v5 lite": Chip(197e12, 16e9, 819e9, 200e9),  # v5e
    "TPU v5": Chip(459e12, 95e9, 2765e9, 600e9),  # v5p
    "TPU v6 lite": Chip(918e12, 32e9, 1640e9, 448e9),  # v6e
}


@dataclass(frozen=True)
class Slice:
    """A slice of a TPU.

    Attributes:
      topology: its name, such as ``v5e:4x4``.
      devices: all devices; they share a batch.
      kind: JAX's name of one device.
      num_chips: number of chips; before v5e a chip is two devices.
    """

    topology: str
    devices: Devices
    kind: str
    num_chips: int

    @property
    def chip(self) -> Chip | None:
        """The vendor's figures, None for a kind that is not in `CHIPS`."""
        return CHIPS.get(self.kind)

    @property
    def devices_per_chip(self) -> int:
        """Number of devices on a chip."""
        return self.devices.count // self.num_chips


def find_slice(topology: str) -> Slice:
    """The slice with a name; no TPU is needed.

    Raises:
      InputError: an unknown topology, or libtpu is not installed.
    """
    check_topology(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            'libtpu must be installed: pip install -e ".[tpu]" in an environment of '
            "its own"
        )
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    # Arrays of this process live on the host; a program for a TPU that was read from a
    # cache could not be inspected.
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)
    from jax.experimental import topologies

    name = topology or "none"  # libtpu reads the empty name as a slice of its choice
    try:
        description = topologies.get_topology_desc(platform="tpu", topology_name=name)
    except jax.errors.JaxRuntimeError as error:
        if "INVALID_ARGUMENT" not in str(error):
            raise
        raise InputError(_explain(topology)) from error
    devices: Any = tuple(description.devices)
    num_chips = len({tuple(device.coords) for device in devices})
    return Slice(topology, Devices(devices), devices[0].device_kind, num_chips)


def check_topology(topology: str) -> None:
    """Raises `InputError` for a grid that its generation cannot have.

    >>> check_topology("v5e:4x4")
    >>> check_topology("v5e:4x4x4")
    Traceback (most recent call last):
    flaxvae.checks.InputError: topology must be a grid of at most 16x16 chips for v5e, \
got 'v5e:4x4x4'
    """
    generation, colon, grid = topology.lower().partition(":")
    if generation not in LARGEST and (colon or not generation.startswith("v")):
        raise InputError(_explain(topology))
    if not colon:  # libtpu knows some by the number of their cores, such as v4-8
        return
    if not re.fullmatch(r"[1-9]\d{0,3}(x[1-9]\d{0,3}){1,2}", grid):
        raise InputError(_explain(topology))
    sides = [int(side) for side in grid.split("x")]
    while sides[-1] == 1 and len(sides) > 2:
        sides.pop()
    largest = LARGEST[generation]
    fits = len(sides) <= len(largest) and all(
        side <= most
        for side, most in zip(
            sorted(sides, reverse=True), sorted(largest, reverse=True), strict=False
        )
    )
    if not fits:
        raise InputError(
            f"topology must be a grid of at most {'x'.join(map(str, largest))} chips "
            f"for {generation}, got {topology!r}"
        )


def _explain(topology: str) -> str:
    return (
        f"unknown topology {topology!r}: give a generation and a grid that it comes "
        f"in, such as {', '.join(EXAMPLES)}"
    )
