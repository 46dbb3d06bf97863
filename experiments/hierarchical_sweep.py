"""Train many VAEs with several levels at once: every combination of some settings.

    python -m experiments.hierarchical_sweep --num_levels 1 2 3 --beta 0.5 1 --seed 0..2
    python -m experiments.hierarchical_sweep --network=conv --num_levels 1 2 --seed 0..2

Everything but --num_levels is as in ``experiments.sweep`` and
``experiments.hierarchical_vae``.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from tyro.conf import OmitArgPrefixes

from experiments import command
from experiments.grids import GridFlags, train_grid
from flaxvae import InputError
from flaxvae.data import Dataset
from flaxvae.models import HierarchicalConfig
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.settings import setting


@dataclass(frozen=True, kw_only=True)
class Flags(GridFlags):
    """Trains a VAE with several levels for every combination of settings."""

    num_levels: tuple[int, ...] = setting((2,), at_least=1)
    """Numbers of levels; of a convolutional network, on each grid."""
    model: OmitArgPrefixes[HierarchicalConfig] = field(
        default_factory=HierarchicalConfig
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model.depth is not None:
            raise InputError(
                f"depth must be left out, got {self.model.depth}: a sweep's num_levels "
                "has the values"
            )
        for num_levels in self.num_levels:
            self.model_of(num_levels)  # checks the combination

    def model_of(self, num_levels: int) -> HierarchicalConfig:
        """The model of so many levels; one level has nothing between levels."""
        if self.model.network == "mlp" and num_levels == 1:
            return dataclasses.replace(
                self.model,
                depth=1,
                level_hidden=None,
                inference="top_down",
                decoder_skip=False,
            )
        return dataclasses.replace(self.model, depth=num_levels)


def main(flags: Flags) -> None:
    """A grid of VAEs with several levels."""

    def build_for(dataset: Dataset) -> Callable[[int], HierarchicalVAE]:
        return lambda num_levels: flags.model_of(num_levels).build(dataset)

    train_grid(
        "hierarchical_sweep",
        flags,
        {"num_levels": flags.num_levels},
        build_for,
        {"model": flags.model},
    )


if __name__ == "__main__":
    command.run_command(main, Flags)
