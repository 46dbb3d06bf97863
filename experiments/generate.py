"""Write examples that a trained model makes: images or rows of a table.

    python -m experiments.generate --workdir=runs/... --num=10000
    python -m experiments.generate --workdir=runs/... --label=3 --output=threes/
    python -m experiments.generate --workdir=runs/... --around 0 5 --output=near.npz

The suffix of the output chooses the form: ``.npz`` (arrays ``x`` and, for classes,
``labels``), ``.csv`` (rows, in the table's own units), else a folder of PNG images.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from tyro.conf import OmitArgPrefixes

from experiments.command import run_command
from experiments.flags import DataFlags, StartFlags
from experiments.runs import choose_sampler, count_classes, load_data, load_run
from flaxvae import InputError, TrainedVAE, training
from flaxvae.checks import check_at_least, check_seed
from flaxvae.data import Dataset
from flaxvae.files import atomic_file, atomic_folder


@dataclass(frozen=True)
class Flags:
    """Writes examples drawn from a trained model."""

    workdir: Path
    """Folder of the run with the model."""
    output: Path | None = None
    """NAME.npz, NAME.csv or a folder for PNGs, all new; None: WORKDIR/made.npz."""
    num: int = 100
    """Examples to make; with --around, for each given one."""
    sampler: Literal["prior", "mixture", "aggregate"] = "prior"
    """Codes: prior, a mixture fitted to codes, or a training example's own."""
    label: int | None = None
    """Only this class: told to a model that takes one, else codes of its examples."""
    around: tuple[int, ...] = ()
    """Numbers of test examples to vary: codes from their posteriors."""
    spread: float = 1.0
    """--around: times the posterior's deviation."""
    noise: bool = False
    """Draw from p(x|z) in place of its mean; rows of a table always are drawn."""
    seed: int = 0
    """Seed of the draws."""
    data: OmitArgPrefixes[DataFlags] = field(default_factory=DataFlags)
    start: OmitArgPrefixes[StartFlags] = field(default_factory=StartFlags)


def main(flags: Flags) -> None:
    """Model, codes, examples, file."""
    check_flags(flags)
    trained = load_run(flags.workdir)
    output = flags.output or flags.workdir / "made.npz"
    check_output(output, is_table=len(trained.data_shape) == 1)
    num_classes = count_classes(flags.workdir, trained)
    is_of_class = flags.label is not None and num_classes is None
    if is_of_class and len(trained.code_shape) > 1:
        raise InputError(
            f"label must be left out for a prior over codes that knows no classes, got "
            f"{flags.label}"
        )
    needs_data = flags.sampler != "prior" or bool(flags.around) or is_of_class
    dataset = load_data(flags.data, trained) if needs_data else None
    x, labels = make(trained, num_classes, dataset, flags)
    if len(trained.data_shape) == 1:
        x = trained.preprocessing.inverse(x)
    columns = None if dataset is None else dataset.columns
    write(x, labels, columns, output.expanduser())
    print(f"{len(x):,} examples written to {output}")


def check_flags(flags: Flags) -> None:
    """Refuses values that nothing could be made of."""
    check_at_least("num", flags.num, 1)
    check_at_least("spread", flags.spread, 0)
    check_seed(flags.seed)
    if flags.around and (flags.label is not None or flags.sampler != "prior"):
        raise InputError("around must stand alone, without label and sampler")
    if flags.label is not None:
        check_at_least("label", flags.label, 0)


def check_output(output: Path, *, is_table: bool) -> None:
    """Refuses a name that is taken, cannot be written, or whose form does not fit."""
    if output.suffix == ".csv" and not is_table:
        raise InputError(
            f"output must be .npz or a folder for images, got {str(output)!r}"
        )
    if output.suffix not in (".csv", ".npz") and is_table:
        raise InputError(f"output must be .npz or .csv for rows, got {str(output)!r}")
    if output.expanduser().exists():
        raise InputError(f"output must not exist yet, got {str(output)!r}")
    training.check_writable(output.expanduser().absolute().parent)


def make(
    trained: TrainedVAE, num_classes: int | None, dataset: Dataset | None, flags: Flags
) -> tuple[np.ndarray, np.ndarray | None]:
    """The examples, and the class of each where one was asked for."""
    key = training.stream_key(jax.random.key(flags.seed), training.Stream.FIGURES)
    with_noise = flags.noise or len(trained.data_shape) == 1
    if flags.around:
        assert dataset is not None
        return vary(trained, dataset, flags, key, with_noise), None
    if trained.is_conditional and num_classes is None:
        raise InputError("workdir must be of a model that is told classes")
    name, labels = flags.sampler, None
    if flags.label is not None:
        if num_classes is not None and flags.label >= num_classes:
            raise InputError(f"label must be < {num_classes}, got {flags.label}")
        labels = np.full(flags.num, flags.label)
        if num_classes is None and name == "prior":
            # A class that nothing is told: that of the examples whose codes are drawn.
            name = "aggregate"
    elif num_classes is not None:
        labels = np.arange(flags.num) % num_classes
    known = None if dataset is None else examples_of(dataset, flags.label)
    told = None if num_classes is None else labels
    sampler = choose_sampler(flags.workdir, trained, name, known, flags.seed, told)
    x = trained.sample(
        flags.num,
        key=key,
        with_noise=with_noise,
        sampler=sampler,
        condition=told if trained.is_conditional else None,
    )
    return np.asarray(x), labels


def examples_of(dataset: Dataset, label: int | None) -> Any:
    """Training examples: all, or those of a class.

    Raises:
      InputError: the class has none.
    """
    if label is None:
        return dataset.train.x
    if dataset.train.labels is None:
        raise InputError(
            f"label must be left out for {dataset.name!r}, which has no labels"
        )
    rows = np.flatnonzero(dataset.train.labels == label)
    if not len(rows):
        raise InputError(f"label must be a class of {dataset.name!r}, got {label}")
    return dataset.train.x[rows]


def vary(
    trained: TrainedVAE,
    dataset: Dataset,
    flags: Flags,
    key: jax.Array,
    with_noise: bool,
) -> np.ndarray:
    """Examples whose codes lie around those of given ones."""
    rows = np.array(flags.around)
    if rows.min() < 0 or rows.max() >= len(dataset.test):
        raise InputError(
            f"around must be numbers from 0 to {len(dataset.test) - 1}, of test "
            f"examples, got {' '.join(map(str, rows))}"
        )
    split = dataset.test[rows]
    if len(trained.code_shape) > 1:
        raise InputError("around must be left out for a model whose code is a grid")
    q = trained.encode(split.x, split.condition)
    key_z, key_x = jax.random.split(key)
    draws = q.sample(key_z, (flags.num,))  # (num, rows, D)
    z = q.mean[None] + flags.spread * (draws - q.mean[None])
    z = z.swapaxes(0, 1).reshape(-1, *q.mean.shape[1:])  # (rows * num, D)
    told = None
    if split.condition is not None:
        told = np.repeat(split.condition, flags.num, axis=0)
    p = trained.decode(z, told)
    return np.asarray(p.sample(key_x) if with_noise else p.mean)


def write(
    x: np.ndarray,
    labels: np.ndarray | None,
    columns: tuple[str, ...] | None,
    output: Path,
) -> None:
    """One file, or a folder of images; complete or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".npz":
        arrays = {"x": x} if labels is None else {"x": x, "labels": labels}
        with atomic_file(output) as temporary:
            np.savez(temporary, allow_pickle=False, **arrays)
    elif output.suffix == ".csv":
        import pyarrow as pa
        import pyarrow.csv

        names = columns or [f"column {i + 1}" for i in range(x.shape[1])]
        table = pa.table({name: x[:, i] for i, name in enumerate(names)})
        with atomic_file(output) as temporary:
            pyarrow.csv.write_csv(table, temporary)
    else:
        import PIL.Image

        if x.shape[-1] not in (1, 3):
            raise InputError(
                f"output must be .npz for images of {x.shape[-1]} channels, got "
                f"{str(output)!r}"
            )
        levels = np.round(np.clip(x, 0.0, 1.0) * 255).astype(np.uint8)
        width = len(str(len(x) - 1))
        with atomic_folder(output) as folder:
            for i, image in enumerate(levels):
                name = f"{i:0{width}}" + ("" if labels is None else f"-{labels[i]}")
                picture = PIL.Image.fromarray(
                    image[..., 0] if image.shape[-1] == 1 else image
                )
                picture.save(folder / f"{name}.png")


if __name__ == "__main__":
    run_command(main, Flags)
