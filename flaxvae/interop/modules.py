"""The activation of a PyTorch program, and checks of its module's submodules."""

import math
from collections.abc import Sequence
from typing import Any

from flaxvae.checks import InputError
from flaxvae.interop.program import refuse
from flaxvae.nn.batch_norm import EPSILON
from flaxvae.nn.layers import GROUPS

ACTIVATIONS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "SiLU": "silu",
    "Tanh": "tanh",
    "Sigmoid": "sigmoid",
}
RESIZING = ("Pool1d", "Pool2d", "Upsample", "PixelShuffle")  # in names of classes
OF_OUTPUTS = ("Softmax", "LogSoftmax", "LogSigmoid")
OF_ACTIVATIONS = "torch.nn.modules.activation"  # where PyTorch defines them


def read_modules(
    modules: Sequence[object], *, is_stated: bool = False
) -> dict[str, str | float | None]:
    """The activation of a network, where its modules have one; else nothing.

    Args:
      modules: submodules without weights, and normalizations, in the order of their
        definition.
      is_stated: whether the activation is known without them.

    Raises:
      InputError: pooling, resizing, an activation or a normalization that flaxvae's
        networks do not have; or different activations, unless one is stated.
    """
    found: list[tuple[str, float | None]] = []
    for module in modules:
        name = type(module).__name__
        if any(part in name for part in RESIZING):
            refuse(name)
        alpha = getattr(module, "alpha", 1.0)
        if "Norm" in name:
            _check_normalization(module, name)
        if name == "ELU" and alpha != 1:
            refuse(f"ELU with alpha={alpha:g}")
        kind = ACTIVATIONS.get(name)
        if name == "GELU":
            is_tanh = getattr(module, "approximate", "none") == "tanh"
            kind = "gelu" if is_tanh else "gelu_exact"
        is_activation = type(module).__module__ == OF_ACTIVATIONS
        if kind is None and is_activation and name not in OF_OUTPUTS and not is_stated:
            refuse(name)
        if kind is not None:
            slope = None
            if kind == "leaky_relu":
                slope = float(getattr(module, "negative_slope", 0.01))
            found.append((kind, slope))
    if len(found) > 1 and found[-1][0] in ("sigmoid", "tanh"):
        found.pop()  # that of the outputs
    elif found == [("sigmoid", None)]:
        found.pop()  # likewise; the others are functions, which are not seen
    elif found == [("tanh", None)] and not is_stated:
        raise InputError(
            "activation must be stated for a module with one Tanh, which may be that "
            "of the outputs alone"
        )
    own = [m for m in modules if not type(m).__module__.startswith("torch.")]
    if own and not found and not is_stated:
        refuse(f"{type(own[0]).__name__}, unless activation says what it computes")
    kinds = dict.fromkeys(found)
    if len(kinds) > 1 and not is_stated:
        names = ", ".join(kind for kind, _ in kinds)
        raise InputError(
            f"activation must be stated for a module with several, got {names} "
            "(decoder_activation is that of the decoder)"
        )
    slopes = {slope for kind, slope in kinds if kind == "leaky_relu"}
    if len(kinds) > 1 and len(slopes) == 1:
        return {"negative_slope": slopes.pop()}
    if len(kinds) != 1:
        return {}
    ((kind, slope),) = kinds
    return {"activation": kind, "negative_slope": slope}


def _check_normalization(module: Any, name: str) -> None:
    """Refuses a normalization that flaxvae's networks do not compute."""
    eps = float(getattr(module, "eps", EPSILON))
    is_batch = name.startswith("BatchNorm")
    if is_batch and not module.track_running_stats:
        refuse(f"{name} with track_running_stats=False")
    if is_batch and eps != EPSILON:
        refuse(f"{name} with eps={eps:g}")
    if name == "GroupNorm":
        groups = math.gcd(GROUPS, module.num_channels)
        if module.num_groups != groups:
            refuse(f"GroupNorm with num_groups={module.num_groups}, not {groups}")
    elif not is_batch and name != "LayerNorm":
        refuse(name)
    elif not is_batch and eps not in (1e-5, 1e-6):
        refuse(f"{name} with eps={eps:g}")
