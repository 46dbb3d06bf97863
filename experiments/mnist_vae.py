"""Train a VAE on MNIST, or on any data, and look at its latent space.

    python -m experiments.mnist_vae --latent_dim=2
    python -m experiments.mnist_vae --binarize=static --objective=iwae --prior=vamp
    python -m experiments.mnist_vae --dataset=FOLDER_OF_IMAGES --encoder=conv

On 2 CPU cores 30 epochs of MNIST take about a minute. Expected -ELBO on the test split,
in nats, one draw of z per image (seed 0, grey levels, batch 128, learning rate 1e-3):

    --hidden 256     --latent_dim=2     151.1 (seeds 1 and 2: 152.1, 151.3)
    --hidden 400     --latent_dim=20    103.3
    --hidden 256 256 --latent_dim=20    101.1
    --encoder=conv   --latent_dim=20    100.9
    --encoder=resnet --latent_dim=32    96.4 (--normalization=batch --activation=silu)
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import name_workdir, run_command
from experiments.examples import choose_classes, choose_examples, decode_grid
from experiments.flags import (
    METHOD_FLAGS,
    NOT_SETTINGS,
    PARTS,
    DataFlags,
    NetworkFlags,
    ObjectiveFlags,
    StartFlags,
    TrainingFlags,
    flag_values,
)
from flaxvae import InputError, TrainedVAE, evaluation, latent, training
from flaxvae.checks import check_above, check_at_least, check_seed
from flaxvae.data import Dataset, condition_on_labels
from flaxvae.models import VAE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TIMES = (
    "seconds_per_epoch",
    "seconds_per_step",
    "images_per_second",
    "compile_seconds",
    "peak_memory_bytes",
)
NOTES = NOT_SETTINGS | {"workdir", "data_dir", "figures", "manifold_dims"}
NOTES |= {"nll_samples", "sampler"}
SURGERY = {  # the parts of the KL, see `evaluation.elbo_surgery`
    "mutual_information": "of it, I(x; z)",
    "total_correlation": "of it, total correlation",
    "dimension_kl": "of it, dimensions alone",
}
SAMPLERS = {
    "prior": "the prior",
    "mixture": "a mixture fitted to training codes",
    "aggregate": "the posteriors of training examples",
}


@dataclass(frozen=True)
class Flags:
    """Trains a variational autoencoder on any data and shows its latent space.

    Numbers are in nats per example. The same command continues an interrupted run.
    """

    latent_dim: int = 2
    """Number of latent dimensions."""
    learning_rate: float = 1e-3
    """Highest step size of the optimizer."""
    seed: int = 0
    """Seed of all randomness of the run."""
    workdir: Path | None = None
    """Folder of the run; None: under runs/mnist_vae, named by data and flags."""
    nll_samples: int | None = None
    """Also report -log p(x) of the test split by so many samples; None: no."""
    sampler: Literal["prior", "mixture", "aggregate"] = "prior"
    """Codes of samples: prior, a mixture fitted to codes, or a training image's own."""
    conditional: bool = False
    """Tell the model each example's class (arXiv 1406.5298)."""
    conditioning: Literal["concat", "embedding", "film"] | None = None
    """How: beside the input (concat), as embedding there, or to scale layers (film)."""
    figures: bool = True
    """Draw the figures."""
    manifold_dims: tuple[int, int] | None = None
    """Latent dimensions, from 0, of the manifold; None: the two that vary most."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    network: OmitArgPrefixes[NetworkFlags] = field(default_factory=NetworkFlags)
    method: OmitArgPrefixes[ObjectiveFlags] = field(default_factory=ObjectiveFlags)
    train: OmitArgPrefixes[TrainingFlags] = field(default_factory=TrainingFlags)
    engine: OmitArgPrefixes[training.Engine] = field(default_factory=training.Engine)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)

    def build(self, dataset: Dataset | None = None) -> VAE:
        """The model for a data set; None: for any, to see whether there is one."""
        num_classes = dataset.num_classes if dataset else 2
        return self.network.build(
            dataset.shape if dataset else (8, 8, 1),
            self.latent_dim,
            dataset.levels if dataset else None,
            **{name: getattr(self.method, name) for name in PARTS},
            critic=self.method.objective == "factor",
            conditional=(self.conditioning or "concat") if self.conditional else None,
            num_classes=num_classes if self.conditional else None,
        )


def main(flags: Flags) -> None:
    """Data, model, training, numbers, pictures."""
    check_flags(flags)
    flags.train.set_precision()
    if flags.workdir is not None:
        training.check_writable(flags.workdir.expanduser())
    dataset = flags.data.load()
    if flags.conditional:
        dataset = condition_on_labels(dataset)
    if len(dataset.test) < 2:
        raise InputError(
            f"test_size must leave two test examples, got {flags.data.test_size}, "
            f"which leaves {len(dataset.test)}"
        )
    epochs = flags.train.choose_epochs(dataset)
    workdir = flags.workdir or name_workdir(
        "mnist_vae", dataset.name, flags, NOTES | {"dataset"}
    )
    workdir = workdir.expanduser()
    training.check_writable(workdir)

    vae = flags.build(dataset)
    if flags.nll_samples is not None:
        evaluation.check_density(vae, dataset)
    per_epoch = max(1, len(dataset.train) // flags.train.batch_size)
    values = {
        name: str(v) if isinstance(v, Path) else v
        for name, v in flag_values(flags).items()
    }
    values |= {"dataset": dataset.name, "epochs": epochs}
    chosen = flags.train.for_fit(dataset, epochs, flags.learning_rate)
    chosen["optimizer"] = flags.method.add_critic(chosen["optimizer"])
    trained = training.fit(
        vae,
        dataset,
        **flags.method.for_fit(len(dataset.train), epochs, per_epoch),
        **chosen,
        seed=flags.seed,
        workdir=workdir,
        settings={
            name: value
            for name, value in values.items()
            if name not in NOTES and not (name in METHOD_FLAGS and value is None)
        },
        notes={k: v for k, v in values.items() if k in NOTES},
        engine=flags.engine,
    )

    training.hosts.leave()
    if not training.hosts.is_main():
        return

    test = evaluation.evaluate_elbo(trained, dataset, dataset.test, seed=flags.seed)
    if not np.isfinite(list(test.values())).all():
        raise training.NonFiniteError(f"the test numbers are not finite: {test}")
    if flags.nll_samples is not None:
        test |= estimate_nll(trained, dataset, flags)
    posterior = trained.encode(dataset.test.x, dataset.test.condition)
    codes = np.asarray(posterior.mean)  # (N, D)
    active = evaluation.active_units(codes)
    if collapse := evaluation.explain_collapse(active, test["kl"]):
        print(f"NOTE: {collapse}", file=sys.stderr)
    figures = []
    if flags.figures:
        figures = draw_figures(trained, dataset, codes, workdir / "figures", flags)
    folder = training.RunFolder(workdir)
    before = folder.summary or {}
    summary = {
        "dataset": dataset.name,
        "network": flags.network.describe(dataset.shape, flags.latent_dim),
        "objective": flags.method.objective,
        "prior": flags.method.prior,
        "posterior": flags.method.posterior,
        "parameters": trained.parameters,
        "train_examples": len(dataset.train),
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "skipped_updates": sum(line.get("skipped", 0) for line in trained.history),
        "device": training.device_name(),
        **dict.fromkeys(TIMES),
        **{name: before.get(name) for name in TIMES},
        **trained.timing,
        "test": test,
        "active_dimensions": int(active.sum()),
        "surgery": evaluation.elbo_surgery(trained, dataset.test.x, seed=flags.seed),
        "latent_dim": flags.latent_dim,
        "figures": [str(path.relative_to(workdir)) for path in figures],
    }
    folder.write_summary(summary)
    print_summary(summary, workdir)


def estimate_nll(
    trained: TrainedVAE, dataset: Dataset, flags: Flags
) -> dict[str, float]:
    """The test split's -log p(x), with progress on the terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("-log p(x)", total=len(dataset.test))
        return evaluation.estimate_nll(
            trained,
            dataset,
            dataset.test,
            num_samples=flags.nll_samples or 1,
            seed=flags.seed,
            on_progress=lambda done: progress.update(task, completed=done),
        )


def check_flags(flags: Flags) -> None:
    """Refuses values that no run could use, before anything is loaded."""
    check_above("learning_rate", flags.learning_rate, 0)
    check_seed(flags.seed)
    flags.train.check()
    flags.engine.check()
    flags.network.check(flags.latent_dim)
    flags.data.check()
    flags.method.check()
    if flags.conditioning and not flags.conditional:
        raise InputError(
            f"conditioning must be left out without --conditional, got "
            f"{flags.conditioning}"
        )
    if flags.conditional and flags.sampler != "prior":
        raise InputError(
            "sampler must be prior for a conditional model, whose codes depend on the "
            f"class, got {flags.sampler}"
        )
    flags.build()
    if flags.nll_samples is not None:
        check_at_least("nll_samples", flags.nll_samples, 1)
    if flags.manifold_dims is not None:
        latent.check_dims(flags.latent_dim, flags.manifold_dims, "manifold_dims")


def draw_figures(
    trained: TrainedVAE, dataset: Dataset, codes: np.ndarray, folder: Path, flags: Flags
) -> list[Path]:
    """Draws every figure into ``folder`` and returns their paths."""
    from flaxvae.latent import figures

    name = f"{dataset.name}, {flags.network.describe(dataset.shape, flags.latent_dim)}"
    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    z_names = [f"$z_{{{d + 1}}}$" for d in range(flags.latent_dim)]
    if flags.latent_dim <= 2:
        points, point_axes, kind = codes, z_names, "posterior means"
    else:
        points, share = latent.pca(codes)
        point_axes = [f"PC {i + 1} ({s:.0%} of variance)" for i, s in enumerate(share)]
        kind = f"PCA of posterior means ({share.sum():.0%} of variance)"
    drawn = {
        "training_curves": figures.plot_training_curves(
            trained.history, title=f"Training: {name}"
        ),
        "latent_scatter": figures.plot_latent_scatter(
            points,
            dataset.test.labels,
            axis_labels=point_axes,
            class_names=dataset.class_names,
            title=f"Test {kind}: {name}",
        ),
    }
    draw = draw_table if dataset.is_table else draw_images
    drawn |= draw(trained, dataset, codes, name, key, flags)
    for stem, figure in drawn.items():
        figures.save_figure(figure, folder / f"{stem}.png")
    return [folder / f"{stem}.png" for stem in drawn]


def draw_table(
    trained: TrainedVAE,
    dataset: Dataset,
    codes: np.ndarray,
    name: str,
    key: jax.Array,
    flags: Flags,
) -> dict[str, "Figure"]:
    """Figures about rows of numbers."""
    from flaxvae.latent import figures

    units = dataset.preprocessing.inverse
    told = dataset.test.condition
    means = units(np.asarray(trained.decode(codes, told).mean))
    samples = trained.sample(
        len(codes),
        key=key,
        with_noise=True,
        sampler=choose_sampler(trained, dataset, flags),
        condition=told,
    )
    return {
        "reconstructions": figures.plot_columns(
            np.asarray(dataset.test.x),
            means,
            dataset.columns,
            title=f"Test rows and their reconstructions: {name}",
        ),
        "samples": figures.plot_column_samples(
            np.asarray(dataset.test.x),
            units(np.asarray(samples)),
            dataset.columns,
            title=f"Test rows and samples from {SAMPLERS[flags.sampler]}: {name}",
        ),
    }


def draw_images(
    trained: TrainedVAE,
    dataset: Dataset,
    codes: np.ndarray,
    name: str,
    key: jax.Array,
    flags: Flags,
) -> dict[str, "Figure"]:
    """Figures about images."""
    from flaxvae.latent import figures

    shown = choose_examples(dataset.test)
    stored = dataset.test.x[shown]
    images = np.asarray(dataset.preprocessing.prepare(jax.numpy.asarray(stored)))
    told = dataset.test.condition
    drawn = {
        "reconstructions": figures.plot_reconstructions(
            images,
            np.asarray(
                trained.reconstruct(stored, None if told is None else told[shown])
            ),
            title=f"Test images and their reconstructions: {name}",
        )
    }
    if flags.conditional:
        return drawn | draw_classes(trained, dataset, name, key)
    starts, ends = shown[0 : len(shown) - 1 : 2], shown[1::2]
    pairs = images[0 : len(shown) - 1 : 2], images[1::2]
    paths = latent.interpolate(codes[starts], codes[ends], 12)  # (rows, steps, D)
    dims = choose_dims(codes, flags)
    grid = latent.quantile_grid(flags.latent_dim, dims=dims)  # (rows, columns, D)
    rest = "" if flags.latent_dim <= 2 else ", other dimensions 0"
    sampler = choose_sampler(trained, dataset, flags)
    return drawn | {
        "manifold": figures.plot_manifold(
            decode_grid(trained, grid),
            axis_labels=[f"$z_{{{d + 1}}}$" for d in dims],
            title=f"Decoded latent grid{rest}: {name}",
        ),
        "samples": figures.plot_samples(
            np.asarray(trained.sample(100, key=key, sampler=sampler)),
            title=f"Samples from {SAMPLERS[flags.sampler]}: {name}",
            columns=20,
        ),
        "interpolations": figures.plot_interpolations(
            decode_grid(trained, paths),
            pairs,
            title=f"Straight paths between the codes of test images: {name}",
        ),
    }


def draw_classes(
    trained: TrainedVAE, dataset: Dataset, name: str, key: jax.Array
) -> dict[str, "Figure"]:
    """Figures about a conditional model: samples of each class, in a row each."""
    from flaxvae.latent import figures

    told, names = choose_classes(dataset)
    key_samples, key_same = jax.random.split(key)
    samples = np.asarray(
        trained.sample(told.size, key=key_samples, condition=told.ravel())
    )
    z = jax.random.normal(key_same, (told.shape[1], trained.latent_dim))
    same = np.broadcast_to(np.asarray(z), (*told.shape, trained.latent_dim))
    return {
        "class_samples": figures.plot_rows(
            samples.reshape(*told.shape, *trained.data_shape),
            names,
            title=f"Samples of each class: {name}",
        ),
        "class_change": figures.plot_rows(
            decode_grid(trained, same, told),
            names,
            title=f"The same code in each column, decoded under each class: {name}",
        ),
    }


def choose_sampler(trained: TrainedVAE, dataset: Dataset, flags: Flags) -> Any:
    """What the codes of samples are drawn from; None: the prior."""
    if flags.sampler == "mixture":
        return latent.fit_mixture(trained, dataset.train.x, seed=flags.seed)
    if flags.sampler == "aggregate":
        return latent.AggregatePosterior(trained, dataset.train.x)
    return None


def choose_dims(codes: np.ndarray, flags: Flags) -> tuple[int, ...]:
    """The dimensions of the manifold: as asked for, or the two that vary most."""
    if flags.manifold_dims is not None:
        return flags.manifold_dims
    if flags.latent_dim <= 2:
        return tuple(range(flags.latent_dim))
    widest = np.argsort(codes.var(axis=0))[::-1][:2]
    return tuple(sorted(int(d) for d in widest))


def print_summary(summary: dict[str, Any], workdir: Path) -> None:
    """Prints the final numbers as one small table."""
    from rich.console import Console
    from rich.table import Table

    test = summary["test"]
    table = Table(
        title=f"{summary['dataset']}, {summary['network']}", show_header=False
    )
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    chosen = [summary[name] for name in ("objective", "prior", "posterior")]
    table.add_row("method", "{}, prior {}, posterior {}".format(*chosen))
    table.add_row("test -ELBO", f"{-test['elbo']:.2f} nats per example")
    table.add_row("reconstruction", f"{-test['log_likelihood']:.2f} nats")
    table.add_row("KL", f"{test['kl']:.2f} nats")
    if "nll" in test:
        error = f"{test['nll']:.2f} ± {test['nll_monte_carlo_error']:.2f} nats"
        table.add_row("test -log p(x)", f"{error} (of the draws)")
    for name, title in SURGERY.items():
        if name in summary["surgery"]:
            table.add_row(title, f"{summary['surgery'][name]:.2f} nats")
    active = f"{summary['active_dimensions']} of {summary['latent_dim']}"
    table.add_row("active dimensions", active)
    table.add_row("parameters", f"{summary['parameters']:,}")
    best = ""
    if summary["best_epoch"] is not None:
        best = f", the best: {summary['best_epoch']}"
    table.add_row("epochs", f"{summary['epochs']} on {summary['device']}{best}")
    if summary["skipped_updates"]:
        table.add_row("skipped updates", f"{summary['skipped_updates']:,}")
    if summary["seconds_per_epoch"] is not None:
        seconds = f"{summary['seconds_per_epoch']:.3g} s"
        rate = f"{summary['images_per_second']:,.0f} images/s"
        table.add_row("median epoch", f"{seconds}, {rate}; compiling excluded")
    if summary["peak_memory_bytes"] is not None:
        gigabytes = summary["peak_memory_bytes"] / 1e9
        table.add_row("peak memory", f"{gigabytes:.2f} GB")
    files = ["config.json", "metrics.jsonl", "timing.jsonl", "summary.json"]
    files.append("checkpoints/")
    table.add_row("written to", str(workdir))
    table.add_row("files", "\n".join([*files, *summary["figures"]]))
    Console().print(table)


if __name__ == "__main__":
    run_command(main, Flags)
