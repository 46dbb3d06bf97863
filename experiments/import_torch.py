"""Make a run's folder of the weights of a PyTorch program.

    python -m experiments.import_torch vae.pt --names=pytorch_examples --hidden 400

The folder is as if trained here: `flaxvae.load` and every command that takes a run's
folder read it. The model's test numbers are printed, so that a wrong guess of the
architecture shows.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from experiments.command import run_command
from experiments.flags import DataFlags, NetworkFlags
from experiments.presets import PRESETS
from flaxvae import TrainedVAE, evaluation, interop, training
from flaxvae.checks import InputError, check_choice


@dataclass(frozen=True)
class Flags:
    """Makes a run's folder of the weights of a PyTorch program."""

    weights: Positional[Path]
    """A state dict: .safetensors, or .pt without pickled code."""
    names: str | None = None
    """Its layers' names: a key of `flaxvae.interop.ARCHITECTURES`; None: flaxvae's."""
    preset: str | None = None
    """The model by name, in place of the flags below."""
    latent_dim: int = 20
    """Number of latent dimensions."""
    workdir: Path | None = None
    """Folder to make; None: under runs/import_torch, named by the weights' file."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)


def main(flags: Flags) -> None:
    """Weights, model, folder, numbers."""
    if flags.names is not None:
        check_choice("names", flags.names, interop.ARCHITECTURES)
    if flags.preset is not None:
        check_choice("preset", flags.preset, PRESETS)
        if flags.network != NetworkFlags():
            raise InputError("preset must be left out where the network is described")
    flags.data.check()
    workdir = flags.workdir or Path("runs") / "import_torch" / flags.weights.stem
    training.check_writable(workdir.expanduser())
    dataset = flags.data.load()
    if flags.preset is not None:
        vae = PRESETS[flags.preset].build(dataset.shape)
    else:
        vae = flags.network.build(dataset.shape, flags.latent_dim, dataset.levels)
    variables = interop.from_torch(
        flags.weights.expanduser(), vae, dataset.shape, names=flags.names
    )
    trained = TrainedVAE(vae, variables, dataset.shape, dataset.preprocessing)
    training.save(trained, workdir.expanduser(), dataset)
    test = evaluation.evaluate_elbo(trained, dataset, dataset.test)
    print(
        f"{trained.parameters:,} parameters; {dataset.name}: test -ELBO "
        f"{-test['elbo']:.2f} = {-test['log_likelihood']:.2f} + {test['kl']:.2f} nats"
        f"\nwritten to {workdir}"
    )


if __name__ == "__main__":
    run_command(main, Flags)
