"""Parameters of the affine layers of a `Flow`."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def affine_parameters(
    module: nn.Module, name: str, inputs: int, outputs: int
) -> tuple[jax.Array, ...]:
    """Parameters of a network with one hidden layer whose initial output is zero.

    Args:
      module: the module that owns them, with a field ``width``: H hidden units.
      name: prefix of their names.
      inputs: number of inputs.
      outputs: half the number of outputs: scales, then shifts.

    Returns:
      Kernel and bias into the hidden layer, kernel and bias out of it.
    """
    zeros = nn.initializers.zeros_init()
    normal = nn.initializers.lecun_normal() if inputs else zeros  # of no entries
    H, F = module.width, jnp.float32
    return (
        module.param(f"{name}_kernel_in", normal, (inputs, H), F),
        module.param(f"{name}_bias_in", zeros, (H,), F),
        module.param(f"{name}_kernel_out", zeros, (H, 2 * outputs), F),
        module.param(f"{name}_bias_out", zeros, (2 * outputs,), F),
    )
