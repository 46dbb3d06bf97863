"""The activation of a PyTorch program, from the submodules of its module."""

from collections.abc import Sequence

from flaxvae.checks import InputError

ACTIVATIONS = {
    "ReLU": "relu",
    "LeakyReLU": "leaky_relu",
    "ELU": "elu",
    "SiLU": "silu",
    "Tanh": "tanh",
}
RESIZING = ("Pool1d", "Pool2d", "Upsample", "PixelShuffle")  # in names of classes


def read_modules(modules: Sequence[object]) -> dict[str, str | float | None]:
    """The activation of a network, where its modules have one; else nothing.

    Args:
      modules: submodules without weights, in the order of their definition.

    Raises:
      InputError: pooling or resizing, which flaxvae's networks do not have.
    """
    found: dict[tuple[str, float | None], int] = {}
    for module in modules:
        name = type(module).__name__
        if any(part in name for part in RESIZING):
            raise InputError(
                "weights must be of a network that flaxvae's parts can build, got "
                f"{name}: write its encoder and decoder as Linen modules"
            )
        kind = ACTIVATIONS.get(name)
        if name == "GELU":
            is_tanh = getattr(module, "approximate", "none") == "tanh"
            kind = "gelu" if is_tanh else "gelu_exact"
        if kind is not None:
            slope = None
            if kind == "leaky_relu":
                slope = float(getattr(module, "negative_slope", 0.01))
            found[kind, slope] = found.get((kind, slope), 0) + 1
    if found.get(("tanh", None)) == 1 or len(found) > 1:
        found.pop(("tanh", None), None)  # that of the outputs
    if len(found) != 1:
        return {}
    ((kind, slope),) = found
    return {"activation": kind, "negative_slope": slope}
