"""Trainings by name, to be tried on devices, compilers and in benchmarks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from flaxvae.models import VAE, build_vae
from flaxvae.objectives import Objective, elbo


@dataclass(frozen=True)
class Preset:
    """A model for data of a given shape, and how it is trained."""

    build: Callable[[Sequence[int]], VAE]
    objective: Objective = elbo
    weights: dict[str, float] = field(default_factory=lambda: {"beta": 1.0})
    binarize: str = "none"
    data_shape: tuple[int, ...] = (28, 28, 1)


PRESETS: dict[str, Preset] = {
    "mlp": Preset(lambda shape: build_vae(shape, 20, hidden=(400,))),
    "mlp-binary": Preset(
        lambda shape: build_vae(shape, 50, hidden=(200, 200), activation="tanh"),
        binarize="dynamic",
    ),
    "conv": Preset(lambda shape: build_vae(shape, 20, encoder="conv")),
    "conv-batchnorm": Preset(
        lambda shape: build_vae(
            shape,
            32,
            encoder="conv",
            filters=(32, 64, 128),
            normalization="batch",
            activation="leaky_relu",
            negative_slope=0.2,
        )
    ),
    "resnet": Preset(
        lambda shape: build_vae(
            shape, 32, encoder="resnet", normalization="batch", activation="silu"
        )
    ),
}
