"""Train many VAEs at once: every combination of some settings.

    python -m experiments.sweep --beta 0.5 1 2 4 --seed 0..7 --latent_dim 2 8 32

Combinations of one shape are one compiled program. The table and the figures are about
the validation split, since that is what settings are chosen on; ``--test`` adds the
numbers of the test split to the table.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from tyro.conf import OmitArgPrefixes

from experiments import command
from experiments.grids import GridFlags, train_grid
from flaxvae.data import Dataset
from flaxvae.models import VAE, VAEConfig
from flaxvae.models.networks import NetworkConfig
from flaxvae.settings import setting


@dataclass(frozen=True, kw_only=True)
class Flags(GridFlags):
    """Trains a VAE for every combination of settings, in as few programs as fit."""

    latent_dim: tuple[int, ...] = setting((2,), at_least=1)
    """Numbers of latent dimensions."""
    network: OmitArgPrefixes[NetworkConfig] = field(default_factory=NetworkConfig)


def main(flags: Flags) -> None:
    """A grid of VAEs."""
    network = dataclasses.asdict(flags.network)

    def build_for(dataset: Dataset) -> Callable[[int], VAE]:
        return lambda latent_dim: VAEConfig(latent_dim=latent_dim, **network).build(
            dataset
        )

    train_grid(
        "sweep",
        flags,
        {"latent_dim": flags.latent_dim},
        build_for,
        {"network": flags.network},
    )


if __name__ == "__main__":
    command.run_command(main, Flags)
