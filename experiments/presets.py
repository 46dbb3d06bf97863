"""Trainings by name, to be tried on devices, compilers and in benchmarks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flaxvae.models import VAE, build_vae
from flaxvae.objectives import Objective, elbo


@dataclass(frozen=True)
class Preset:
    """A model and how it is trained."""

    settings: Mapping[str, Any]  # of `build_vae`
    objective: Objective = elbo
    weights: dict[str, float] = field(default_factory=lambda: {"beta": 1.0})
    binarize: str = "none"
    data_shape: tuple[int, ...] = (28, 28, 1)

    def build(self, data_shape: Sequence[int], **more: Any) -> VAE:
        """The model for examples of ``data_shape``, with ``more`` settings."""
        return build_vae(data_shape, **{**self.settings, **more})


# Paddings are numbers, so that PyTorch has the same networks.
PRESETS: dict[str, Preset] = {
    "mlp": Preset({"latent_dim": 20, "hidden": (400,)}),
    "mlp-deep": Preset({"latent_dim": 20, "hidden": (256, 256)}),
    "mlp-binary": Preset(
        {"latent_dim": 50, "hidden": (200, 200), "activation": "tanh"},
        binarize="dynamic",
    ),
    "conv": Preset({"latent_dim": 20, "encoder": "conv", "padding": 1}),
    "conv-batchnorm": Preset(
        {
            "latent_dim": 32,
            "encoder": "conv",
            "filters": (32, 64, 128),
            "padding": 1,
            "normalization": "batch",
            "activation": "leaky_relu",
            "negative_slope": 0.2,
        }
    ),
    "resnet": Preset(
        {
            "latent_dim": 32,
            "encoder": "resnet",
            "padding": 1,
            "normalization": "batch",
            "activation": "silu",
        }
    ),
}
