"""Convert the weights of a PyTorch program to a run's folder.

    python -m experiments.import_torch vae.pt --names=pytorch_examples --hidden 400

The folder is the same as of a model trained here: `flaxvae.load` and every command that
takes a run's folder read it. The model's test numbers are printed, so that a wrong
guess of the architecture shows.
"""

from dataclasses import dataclass, field
from pathlib import Path

from tyro.conf import OmitArgPrefixes, Positional

from experiments import command, inputs
from flaxvae import InputError, evaluation, interop, training
from flaxvae.checks import check_choice
from flaxvae.data import DataConfig
from flaxvae.models import PRESETS, VAEConfig
from flaxvae.objectives import ELBO
from flaxvae.training.run_folder import check_writable

DEFAULT = VAEConfig(latent_dim=20)


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Converts the weights of a PyTorch program to a run's folder."""

    weights: Positional[Path]
    """A state dict: .safetensors, or .pt without pickled code."""
    names: str | None = None
    """Names of its layers: a key of `interop.ARCHITECTURES`. Default: flaxvae's."""
    preset: str | None = None
    """The model by name, in place of the flags below."""
    workdir: Path | None = None
    """New folder. Default: under runs/import_torch, named by the weights' file."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[VAEConfig] = field(default_factory=lambda: DEFAULT)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        if self.names is not None:
            check_choice("names", self.names, interop.ARCHITECTURES)
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)
            if self.model != DEFAULT:
                raise InputError(
                    "preset must be left out where the network is described"
                )


def main(flags: Flags) -> None:
    """Weights, model, folder, numbers."""
    workdir = flags.workdir or Path("runs") / "import_torch" / flags.weights.stem
    check_writable(workdir.expanduser())
    dataset = inputs.load_data(flags)
    config = PRESETS[flags.preset] if flags.preset else flags.model
    vae = config.build(dataset)
    variables = interop.from_torch(
        flags.weights.expanduser(), vae, dataset.shape, names=flags.names
    )
    trained = training.Trained(
        model=vae,
        variables=variables,
        data_shape=dataset.shape,
        preprocessing=dataset.preprocessing,
        template=dataset.without_examples(),
        objective=ELBO(),
    )
    training.save(trained, workdir.expanduser(), dataset)
    test = evaluation.evaluate_elbo(trained, dataset.test)
    print(
        f"{trained.parameters:,} parameters; {dataset.name}: test -ELBO "
        f"{-test['elbo']:.2f} = {-test['log_likelihood']:.2f} + {test['kl']:.2f} nats"
        f"\nwritten to {workdir}"
    )


if __name__ == "__main__":
    command.run_command(main, Flags)
