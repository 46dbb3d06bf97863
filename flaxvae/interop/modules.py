"""The activation of a PyTorch program, from the submodules of its module."""

from collections.abc import Sequence

from flaxvae.checks import InputError
from flaxvae.interop.program import refuse
from flaxvae.nn.batch_norm import EPSILON

ACTIVATIONS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "SiLU": "silu",
    "Tanh": "tanh",
}
RESIZING = ("Pool1d", "Pool2d", "Upsample", "PixelShuffle")  # in names of classes
OF_OUTPUTS = ("Sigmoid", "Softmax", "LogSoftmax", "LogSigmoid")
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
    found: dict[tuple[str, float | None], int] = {}
    for module in modules:
        name = type(module).__name__
        if any(part in name for part in RESIZING):
            refuse(name)
        eps, alpha = getattr(module, "eps", EPSILON), getattr(module, "alpha", 1.0)
        if "Norm" in name and eps != EPSILON:
            refuse(f"{name} with eps={eps:g}")
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
            found[kind, slope] = found.get((kind, slope), 0) + 1
    sigmoids = sum(type(module).__name__ == "Sigmoid" for module in modules)
    if not found and sigmoids > 1:  # one may be that of the outputs
        found["sigmoid", None] = sigmoids
    if found.get(("tanh", None)) == 1 or len(found) > 1:
        found.pop(("tanh", None), None)  # that of the outputs
    if len(found) > 1 and not is_stated:
        names = ", ".join(kind for kind, _ in found)
        raise InputError(
            f"activation must be stated for a module with several, got {names} "
            "(decoder_activation is that of the decoder)"
        )
    if len(found) != 1:
        return {}
    ((kind, slope),) = found
    return {"activation": kind, "negative_slope": slope}
