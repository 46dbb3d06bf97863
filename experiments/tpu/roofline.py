"""A lower bound on the time of a step, from the vendor's figures."""

from experiments.tpu.slices import Chip


def find_floor(
    chip: Chip,
    num_chips: int,
    *,
    flops: float,
    moved_bytes: float,
    reduced_bytes: float,
) -> dict[str, float]:
    """The shortest time that a step can take, in seconds.

    floor = max(flops / peak, moved_bytes / HBM bandwidth)
            + 2 (n - 1) / n * reduced_bytes / interconnect bandwidth

    on n chips: products and memory at full speed and at the same time; then the sum of
    the gradients, which depends on all of them, and on which every update depends.
    Launches, latencies, element-wise work, intermediate results in HBM and products
    with more than bf16 precision (3 or 6 times as long) are not counted.

    >>> chip = Chip(flops=100.0, memory=1.0, bandwidth=10.0, interconnect=5.0)
    >>> find_floor(chip, 4, flops=200.0, moved_bytes=50.0, reduced_bytes=20.0)
    {'compute': 2.0, 'memory': 5.0, 'all_reduce': 6.0, 'step': 11.0}

    Args:
      chip: the vendor's figures.
      num_chips: n.
      flops: FLOPs of a step on one chip.
      moved_bytes: bytes that a chip must read from HBM or write to it, at least the
        arguments and results of a step.
      reduced_bytes: bytes that are summed over the chips.

    Returns:
      ``compute``, ``memory``, ``all_reduce`` and the bound itself, ``step``.
    """
    compute = flops / chip.flops
    memory = moved_bytes / chip.bandwidth
    # Each chip sends and receives its share of the sums, then its share of the result.
    all_reduce = 2 * (num_chips - 1) / num_chips * reduced_bytes / chip.interconnect
    return {
        "compute": compute,
        "memory": memory,
        "all_reduce": all_reduce,
        "step": max(compute, memory) + all_reduce,
    }
