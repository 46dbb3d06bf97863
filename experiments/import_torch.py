"""Convert the weights of a PyTorch program to a run's folder.

    python -m experiments.import_torch vae.pt
    python -m experiments.import_torch vae.ckpt --names=sequential_conv --dataset=mnist
    python -m experiments.import_torch vae.pt --names=names.json --activation=tanh

Widths, filters, kernels, normalizations, biases and the size of the code are read from
the tensors; what they do not tell is assumed, and printed in one line. The folder is
the same as of a model trained here: `flaxvae.load` and every command that takes a run's
folder read it. The model's test numbers are printed, so that a wrong assumption shows.
"""

import dataclasses
import re
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tyro.conf import OmitArgPrefixes, Positional

from experiments import command, inputs
from flaxvae import evaluation, interop, training
from flaxvae.checks import check_choice
from flaxvae.data import DataConfig, Dataset, condition_on_labels
from flaxvae.interop.importing import ModelKind
from flaxvae.interop.matching import read_names
from flaxvae.models import PRESETS, AutoencoderConfig, VAEConfig
from flaxvae.settings import check_settings, field_docs, setting
from flaxvae.training.storage.run_folder import check_no_run

OF_AUTOENCODERS = ("code_activation", "feature_map")


def optional(cls: type[Any]) -> type[Any]:
    """A dataclass with the fields of `VAEConfig` and an autoencoder's, all None."""
    hints, docs = typing.get_type_hints(VAEConfig), field_docs(VAEConfig)
    hints |= typing.get_type_hints(AutoencoderConfig)
    docs |= field_docs(AutoencoderConfig)
    entries = {entry.name: entry for entry in dataclasses.fields(AutoencoderConfig)}
    chosen = [entries[name] for name in OF_AUTOENCODERS]
    lines, annotations = [], {}
    for entry in [*dataclasses.fields(VAEConfig), *chosen]:
        doc = re.sub(
            r"\s*(\([^()]*\)|[;.] [Dd]efault: [^()]*)\.?$", "", docs[entry.name]
        )
        doc = doc.rstrip(".") + ". Default: as in the weights, or assumed."
        metadata = {**entry.metadata, "doc": doc}
        is_switch = hints[entry.name] is bool
        annotations[entry.name] = bool if is_switch else hints[entry.name] | None
        setattr(cls, entry.name, setting(False if is_switch else None, **metadata))
        lines.append(f"      {entry.name}: {' '.join(doc.split())}")
    cls.__annotations__ = annotations
    cls.__doc__ = f"{cls.__doc__}\n\n    Attributes:\n" + "\n".join(lines)
    return dataclass(frozen=True, kw_only=True)(cls)


@optional
class Network:
    """The model, as far as it is to be stated."""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Converts the weights of a PyTorch program to a run's folder."""

    weights: Positional[Path]
    """A checkpoint or a state dict: a file of torch.save, safetensors or npz."""
    names: str | None = None
    """Names of its layers: a key of `interop.ARCHITECTURES`, or a JSON file with a dict
    from flaxvae's names to PyTorch's. Default: found from shapes and names."""
    entry: str | None = None
    """Entry of the checkpoint that holds the weights, such as ema."""
    kind: ModelKind | None = None
    """What the program is. Default: an autoencoder without log-variances."""
    preset: str | None = None
    """A model by name, whose settings count as stated; further flags change them."""
    workdir: Path | None = None
    """New folder. Default: under runs/import_torch, named by the weights' file."""
    data: OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    model: OmitArgPrefixes[Network] = field(default_factory=Network)
    start: OmitArgPrefixes[command.Start] = field(default_factory=command.Start)

    def __post_init__(self) -> None:
        if self.names is not None:
            read_names(self.names)
        if self.preset is not None:
            check_choice("preset", self.preset, PRESETS)
        check_settings(self.model)
        self.settings()

    def settings(self) -> dict[str, Any]:
        """The fields of the model that are stated, by the preset or by flags."""
        stated = without_defaults(PRESETS[self.preset]) if self.preset else {}
        flags = {n: v for n, v in vars(self.model).items() if v not in (None, False)}
        if flags.get("activation", "leaky_relu") != "leaky_relu":
            stated.pop("negative_slope", None)  # that of the preset
        stated |= flags
        is_whole = "encoder" in stated  # otherwise the tensors tell the rest
        is_vae = self.kind != "autoencoder" and not stated.keys() & set(OF_AUTOENCODERS)
        if is_whole and is_vae:
            VAEConfig(**stated)
        return stated


def without_defaults(config: VAEConfig) -> dict[str, Any]:
    """The fields of a config that have been set."""
    set_fields = {
        entry.name: getattr(config, entry.name)
        for entry in dataclasses.fields(config)
        if getattr(config, entry.name) != entry.default
    }
    return {"encoder": config.encoder, "latent_dim": config.latent_dim, **set_fields}


def main(flags: Flags) -> None:
    """Weights, model, folder, numbers."""
    workdir = flags.workdir or Path("runs") / "import_torch" / flags.weights.stem
    check_no_run(workdir.expanduser())
    dataset = inputs.load_data(flags)
    stated = flags.settings()
    if stated.get("conditional"):
        dataset = condition_on_labels(dataset)
    names = None if flags.names is None else read_names(flags.names)
    trained = interop.import_torch(
        flags.weights,
        dataset,
        names=names,
        entry=flags.entry,
        kind=flags.kind,
        **stated,
    )
    numbers = evaluate(trained, dataset)
    training.save(trained, workdir.expanduser(), dataset)
    print(f"{trained.parameters:,} parameters; {dataset.name}: {numbers}")
    print(f"written to {workdir}")


def evaluate(trained: training.Trained, dataset: Dataset) -> str:
    """The test numbers in words."""
    test = evaluation.evaluate(trained, dataset.test)["test"]
    if "squared_error" in test:
        return f"test squared error {test['squared_error']:.5f}, mean over values"
    return (
        f"test -ELBO {-test['elbo']:.2f} = {-test['log_likelihood']:.2f} + "
        f"{test['kl']:.2f} nats"
    )


if __name__ == "__main__":
    command.run_command(main, Flags)
