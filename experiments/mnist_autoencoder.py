"""Train an autoencoder, plain, sparse or denoising, on MNIST or on any data.

    python -m experiments.mnist_autoencoder
    python -m experiments.mnist_autoencoder --kind=sparse
    python -m experiments.mnist_autoencoder --kind=denoising --noise=0.5
    python -m experiments.mnist_autoencoder --encoder=conv

Numbers to expect stand in ``experiments/README.md``.
"""

import math
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import name_workdir, run_command
from experiments.examples import choose_examples, decode_grid
from experiments.flags import (
    NOT_SETTINGS,
    DataFlags,
    NetworkFlags,
    StartFlags,
    TrainingFlags,
    flag_values,
)
from flaxvae import InputError, TrainedVAE, evaluation, latent, training
from flaxvae.checks import check_above, check_at_least, check_below, check_seed
from flaxvae.data import Dataset
from flaxvae.models import Autoencoder, build_autoencoder
from flaxvae.objectives import ACTIVE, corrupt, reconstruction
from flaxvae.schedules import build_schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTES = NOT_SETTINGS | {"workdir", "data_dir", "figures", "compare"}
# Widths of the MLP's dense layers and of the code.
SIZES = {"plain": ((256, 128, 64), 32), "sparse": ((256,), 256)}
SIZES["denoising"] = ((256, 128), 64)
CONV_SIZE = 64  # of a convolutional network's code
UNIT_ERROR = math.sqrt(0.5)  # the scale at which -log p(x|z) is the sum of squares


@dataclass(frozen=True)
class Flags:
    """Trains an autoencoder on any data and shows what its code keeps.

    The same command continues an interrupted run.
    """

    kind: Literal["plain", "sparse", "denoising"] = "plain"
    """What the code is trained to be."""
    latent_dim: int | None = None
    """Width of the code; None: 32 (plain), 256 (sparse), 64 (denoising, or conv)."""
    penalty: Literal["l1", "rate"] | None = None
    """sparse: on absolute values (l1, with a relu code), or on mean rates (sigmoid)."""
    penalty_weight: float | None = None
    """sparse: nats for a unit of it, from 0 up over half the run; None: 1 (l1), 10."""
    rate: float | None = None
    """sparse, penalty rate: the wanted mean of each number of the code (0.05)."""
    corruption: Literal["gaussian", "masking", "salt_and_pepper"] | None = None
    """denoising: what is done to images (gaussian)."""
    noise: float | None = None
    """denoising: standard deviation (gaussian), or share of pixels (0.5)."""
    learning_rate: float = 1e-3
    """Highest step size of the optimizer."""
    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run; None: in runs/mnist_autoencoder, named by data and flags."""
    figures: bool = True
    """Draw the figures."""
    compare: bool = True
    """plain, images: train a VAE of the same size too, and draw both side by side."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)
    train: OmitArgPrefixes[TrainingFlags] = field(default_factory=TrainingFlags)
    engine: OmitArgPrefixes[training.Engine] = field(default_factory=training.Engine)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)

    @property
    def is_mlp(self) -> bool:
        """Whether the encoder is a multilayer perceptron."""
        return self.network.encoder == "mlp"

    @property
    def code_size(self) -> int:
        """D."""
        return self.latent_dim or (SIZES[self.kind][1] if self.is_mlp else CONV_SIZE)

    def settings(self, dataset: Dataset | None, **more: Any) -> dict[str, Any]:
        """The networks' settings for a data set; None: for any."""
        is_table = dataset is not None and dataset.is_table
        defaults: dict[str, Any] = {"likelihood": "normal", **more}
        if self.is_mlp:
            defaults["hidden"] = SIZES[self.kind][0]
        else:
            defaults["normalization"] = "batch"
        if (self.network.likelihood or defaults["likelihood"]) == "normal":
            defaults |= {"scale": "fixed", "init_scale": UNIT_ERROR}
            defaults["mean_activation"] = "none" if is_table else "sigmoid"
        return self.network.settings(dataset.levels if dataset else None, **defaults)

    def build(self, dataset: Dataset | None = None) -> Autoencoder:
        """The model for a data set; None: for any, to see whether there is one."""
        activation = "none"
        if self.kind == "sparse":
            activation = "sigmoid" if self.penalty == "rate" else "relu"
        return build_autoencoder(
            dataset.shape if dataset else (8, 8, 1),
            self.code_size,
            code_activation=activation,
            **self.settings(dataset),
        )

    def for_fit(self) -> dict[str, Any]:
        """The objective and its weights, as arguments of `flaxvae.training.fit`."""
        weights: dict[str, float] = {}
        if self.kind == "sparse" and self.penalty == "rate":
            weight = 10.0 if self.penalty_weight is None else self.penalty_weight
            weights = {"rate_weight": weight, "rate": self.rate or 0.05}
        elif self.kind == "sparse":
            weight = 1.0 if self.penalty_weight is None else self.penalty_weight
            weights = {"l1": weight}
        if self.kind != "denoising":
            return {"objective": reconstruction, "weights": weights}
        kind, noise = self.corruption or "gaussian", self.noise
        weights = {"noise": 0.5 if noise is None else noise}
        return {"objective": Denoising(kind), "weights": weights}


@dataclass(frozen=True)
class Denoising:
    """`reconstruction` of corrupted examples."""

    corruption: str

    def __call__(self, model: Any, x: jax.Array, **more: Any) -> Any:
        """See `reconstruction`."""
        return reconstruction(model, x, corruption=self.corruption, **more)


def main(flags: Flags) -> None:
    """Data, model, training, numbers, pictures."""
    check_flags(flags)
    flags.train.set_precision()
    dataset = flags.data.load()
    if len(dataset.test) < 5:
        raise InputError(
            f"test_size must leave five test examples, got {flags.data.test_size}, "
            f"which leaves {len(dataset.test)}"
        )
    epochs = flags.train.choose_epochs(dataset)
    workdir = flags.workdir or name_workdir(
        "mnist_autoencoder", dataset.name, flags, NOTES | {"dataset"}
    )
    workdir = workdir.expanduser()
    training.check_writable(workdir)
    settings = {
        name: value
        for name, value in flag_values(flags).items()
        if name not in NOTES and value is not None
    }
    settings |= {"dataset": dataset.name, "epochs": epochs}
    fit = flags.train.for_fit(dataset, epochs, flags.learning_rate)
    fit |= {"seed": flags.seed, "settings": settings, "engine": flags.engine}
    method = flags.for_fit()
    schedules = {}
    if flags.kind == "sparse":
        # From the first step on the penalty would silence most of the code for good.
        steps = epochs * max(1, len(dataset.train) // flags.train.batch_size)
        name = next(iter(method["weights"]))
        schedules = {name: build_schedule("linear", max(1, steps // 2))}
    trained = training.fit(
        flags.build(dataset),
        dataset,
        **method,
        **fit,
        schedules=schedules,
        workdir=workdir,
    )
    is_compared = flags.compare and flags.kind == "plain" and not dataset.is_table
    vae = None
    if flags.figures and is_compared:
        print("training a VAE of the same size, to compare", file=sys.stderr)
        vae = training.fit(
            build_twin(flags, dataset), dataset, **fit, workdir=workdir / "vae"
        )
    training.hosts.leave()
    if not training.hosts.is_main():
        return
    objective, weights = method["objective"], method["weights"]
    test = evaluation.evaluate_terms(
        trained, dataset, dataset.test, objective, seed=flags.seed, **weights
    )
    if not np.isfinite(list(test.values())).all():
        raise training.NonFiniteError(f"the test numbers are not finite: {test}")
    if flags.kind == "denoising":
        noisy, clean = corrupt_some(flags, dataset, len(dataset.test))
        test["squared_error_of_input"] = float(np.mean((noisy - clean) ** 2))
    figures = []
    if flags.figures:
        figures = draw_figures(trained, vae, dataset, workdir / "figures", flags)
    summary = {
        "dataset": dataset.name,
        "network": describe(flags, dataset),
        "kind": flags.kind,
        "parameters": trained.parameters,
        "epochs": len(trained.history),
        "device": training.device_name(),
        **trained.timing,
        "test": test,
        "latent_dim": flags.code_size,
        "figures": [str(path.relative_to(workdir)) for path in figures],
    }
    training.RunFolder(workdir).write_summary(summary)
    print_summary(summary, workdir)


def check_flags(flags: Flags) -> None:
    """Refuses values that no run could use, before anything is loaded."""
    check_above("learning_rate", flags.learning_rate, 0)
    check_seed(flags.seed)
    flags.train.check()
    flags.engine.check()
    flags.data.check()
    for name, owner in (
        ("penalty", "sparse"),
        ("penalty_weight", "sparse"),
        ("rate", "sparse"),
        ("corruption", "denoising"),
        ("noise", "denoising"),
    ):
        value = getattr(flags, name)
        if value is not None and flags.kind != owner:
            raise InputError(
                f"{name} must be left out for the kind {flags.kind}, got {value}"
            )
    for name in ("penalty_weight", "noise"):
        if (value := getattr(flags, name)) is not None:
            check_at_least(name, value, 0)
    if flags.noise is not None and flags.corruption not in (None, "gaussian"):
        check_below("noise", flags.noise, 1)
    if flags.rate is not None:
        if flags.penalty != "rate":
            raise InputError(
                f"rate must be left out for the penalty {flags.penalty or 'l1'}, got "
                f"{flags.rate}"
            )
        check_above("rate", flags.rate, 0)
        check_below("rate", flags.rate, 1)
    if flags.latent_dim is not None:
        check_at_least("latent_dim", flags.latent_dim, 1)
    flags.build()


def build_twin(flags: Flags, dataset: Dataset) -> Any:
    """The VAE of the same networks, with the likelihood it would have by itself."""
    network = flags.network
    if flags.is_mlp:
        defaults: dict[str, Any] = {"hidden": SIZES[flags.kind][0]}
    else:
        defaults = {"normalization": "batch"}
    shape, D = dataset.shape, flags.code_size
    return network.build(shape, D, dataset.levels, defaults=defaults)


def corrupt_some(
    flags: Flags, dataset: Dataset, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Test images with noise and without, ``(count, H, W, C)`` each."""
    clean = dataset.preprocessing.prepare(jax.numpy.asarray(dataset.test.x[:count]))
    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    method = flags.for_fit()
    kind, strength = method["objective"].corruption, method["weights"]["noise"]
    noisy = corrupt(clean, key=key, kind=kind, strength=strength)
    return np.asarray(noisy), np.asarray(clean)


def describe(flags: Flags, dataset: Dataset) -> str:
    """The network in a few words."""
    return flags.network.describe(dataset.shape, flags.code_size, SIZES[flags.kind][0])


def draw_figures(
    trained: TrainedVAE,
    vae: TrainedVAE | None,
    dataset: Dataset,
    folder: Path,
    flags: Flags,
) -> list[Path]:
    """Draws every figure into ``folder`` and returns their paths."""
    from flaxvae.latent import figures

    name = f"{dataset.name}, {flags.kind} autoencoder {describe(flags, dataset)}"
    codes = np.asarray(trained.encode(dataset.test.x).mean)  # (N, D)
    places, rows = latent.tsne(codes, seed=flags.seed)
    labels = dataset.test.labels
    drawn = {
        "training_curves": figures.plot_training_curves(
            trained.history, title=f"Training: {name}"
        ),
        "activity": figures.plot_activity(
            codes, ACTIVE, title=f"Codes of test examples: {name}"
        ),
        "tsne": figures.plot_latent_scatter(
            places,
            None if labels is None else labels[rows],
            axis_labels=("t-SNE 1", "t-SNE 2"),
            class_names=dataset.class_names,
            title=f"Codes of test examples, t-SNE: {name}",
        ),
    }
    if dataset.is_table:
        units = dataset.preprocessing.inverse
        drawn["reconstructions"] = figures.plot_columns(
            np.asarray(dataset.test.x),
            units(np.asarray(trained.decode(codes).mean)),
            dataset.columns,
            title=f"Test rows and their reconstructions: {name}",
        )
    else:
        drawn |= draw_images(trained, vae, dataset, name, flags)
    for stem, figure in drawn.items():
        figures.save_figure(figure, folder / f"{stem}.png")
    return [folder / f"{stem}.png" for stem in drawn]


def draw_images(
    trained: TrainedVAE,
    vae: TrainedVAE | None,
    dataset: Dataset,
    name: str,
    flags: Flags,
) -> dict[str, "Figure"]:
    """Figures about images."""
    from flaxvae.latent import figures

    shown = choose_examples(dataset.test)
    stored = dataset.test.x[shown]
    images = np.asarray(dataset.preprocessing.prepare(jax.numpy.asarray(stored)))
    drawn = {
        "reconstructions": figures.plot_reconstructions(
            images,
            np.asarray(trained.reconstruct(stored)),
            title=f"Test images and their reconstructions: {name}",
        )
    }
    if flags.kind == "denoising":
        noisy, clean = corrupt_some(flags, dataset, 12)
        denoised: Any = trained.model.apply(
            trained.variables, noisy, method=lambda m, x: m.decode(m.encode(x).mean)
        )
        drawn["denoised"] = figures.plot_rows(
            np.stack([clean, noisy, np.asarray(denoised.mean)]),
            ["original", "noisy", "denoised"],
            title=f"Test images: {name}",
        )
    if vae is not None:
        drawn["autoencoder_and_vae"] = compare(trained, vae, dataset, shown, flags)
    return drawn


def compare(
    trained: TrainedVAE,
    vae: TrainedVAE,
    dataset: Dataset,
    shown: list[int],
    flags: Flags,
) -> "Figure":
    """What newcomers ask: do paths and draws of codes give images?"""
    from flaxvae.latent import figures

    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    paths, draws = [], []
    for model in (trained, vae):
        ends = np.asarray(model.encode(dataset.test.x[shown]).mean)
        codes = latent.interpolate(ends[0:10:2], ends[1:10:2], 10)
        paths.append(decode_grid(model, codes))
        if model is trained:
            # As spread as the codes of training images, which is all that is known.
            known = np.asarray(model.encode(dataset.train.x[:5000]).mean)
            eps = np.asarray(jax.random.normal(key, (5, 10, known.shape[-1])))
            codes = known.mean(axis=0) + known.std(axis=0) * eps
            draws.append(decode_grid(model, codes))
        else:
            images = np.asarray(model.sample(50, key=key))
            draws.append(images.reshape(5, 10, *model.data_shape))
    return figures.plot_comparison(
        [paths, draws],
        ["autoencoder", "VAE"],
        ["paths between test images", "codes from a normal distribution"],
        title=f"An autoencoder and a VAE of the same size: {dataset.name}",
    )


def print_summary(summary: dict[str, Any], workdir: Path) -> None:
    """Prints the final numbers as one small table."""
    from rich.console import Console
    from rich.table import Table

    test = summary["test"]
    table = Table(
        title=f"{summary['dataset']}, {summary['kind']} autoencoder, "
        f"{summary['network']}",
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("test squared error", f"{test['squared_error']:.5f}, mean of pixels")
    if "squared_error_of_input" in test:
        table.add_row("of the noisy images", f"{test['squared_error_of_input']:.5f}")
    table.add_row("test loss", f"{test['loss']:.2f} nats per example")
    table.add_row("active numbers of a code", f"{test['activity']:.1%}")
    table.add_row("mean of |code|", f"{test['magnitude']:.3g}")
    table.add_row("parameters", f"{summary['parameters']:,}")
    table.add_row("epochs", f"{summary['epochs']} on {summary['device']}")
    if "seconds_per_epoch" in summary:
        table.add_row("median epoch", f"{summary['seconds_per_epoch']:.3g} s")
    table.add_row("written to", str(workdir))
    table.add_row("files", "\n".join(["summary.json", *summary["figures"]]))
    Console().print(table)


if __name__ == "__main__":
    run_command(main, Flags)
