"""Generated samples: from the prior, a sampler, a class, or around examples."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np

from flaxvae.capabilities import ConditionTraits, ModelTraits
from flaxvae.checks import (
    InputError,
    as_integer,
    as_integers,
    check_at_least,
    check_below,
    check_boolean,
    check_numbers,
)
from flaxvae.data import Dataset, Split
from flaxvae.data.dataset import locate_examples
from flaxvae.data.schema import TableSchema
from flaxvae.distributions.distribution import draw_examples
from flaxvae.files import TABLE_SUFFIXES, atomic_file, atomic_folder, write_table
from flaxvae.latent.keys import draw_key
from flaxvae.latent.levels import check_temperature, sample_posterior
from flaxvae.latent.samplers import (
    SamplerName,
    check_sampler,
    choose_sampler,
    is_grid,
)
from flaxvae.models import Autoencoder, Classifier, CodePrior
from flaxvae.training import Trained
from flaxvae.training.keys import Stream
from flaxvae.training.storage.run_folder import check_new_file
from flaxvae.training.trained import CHUNK, mean_of

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE_OF_SMALL = 600  # pixels to which a picture of small images is enlarged
MOST_PIXELS = 20_000  # on a side of one picture of all images


def generate(
    trained: Trained,
    num: int = 100,
    *,
    sampler: SamplerName = "prior",
    label: int | None = None,
    around: Split | None = None,
    spread: float = 1.0,
    with_noise: bool = False,
    temperature: float = 1.0,
    dataset: Dataset | None = None,
    code_prior: Trained | None = None,
    seed: int | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Samples of a trained model; rows and series in the data's own units.

    Categories are exactly one-hot, integers whole, and missing numbers NaN; the schema
    of a run on a table makes rows of the table of them:
    ``run.preprocessing.schema.decode(x, labels)``.

    Without a label, a conditional model generates its classes in turn.

    Args:
      trained: the model.
      num: number of samples; with ``around``, of each example.
      sampler: the distribution of the codes; see `choose_sampler`.
      label: generates one class only: the condition of a conditional model or of a
        class-conditional prior over codes; of any other model, samples come from the
        codes of training examples of that class.
      around: examples to vary: codes are drawn from their posteriors, which are those
        of grey levels where images are dynamically binarized in training.
      spread: scales the deviation of these codes from the posterior mean.
      with_noise: draws from p(x|z) instead of returning its mean; rows of a table are
        always drawn.
      temperature: of a model with several levels, factor of the standard deviations of
        its prior's normal levels; 0 gives the mean of each level given those above.
      dataset: training examples, where the sampler or the label needs them.
      code_prior: of a VQ-VAE, the trained prior over its codes.
      seed: of the draws; default that of the run.

    Returns:
      The samples ``(num, *data_shape)``, or those around the first example, around the
      second, and so on, ``(len(around) * num, *data_shape)``; and the class of each,
      None where none was chosen.

    Raises:
      InputError: arguments that do not fit together or the model.
      NonFiniteError: a model or samples that are infinite or NaN.
    """
    trained.check_finite()
    if code_prior is not None:
        code_prior.check_finite()
    num = as_integer("num", num, 1)
    check_boolean("with_noise", with_noise)
    check_at_least("spread", spread, 0)
    if label is not None:
        label = as_integer("label", label, 0)
    if around is not None and (label is not None or sampler != "prior"):
        raise InputError("around must stand alone, without label and sampler")
    if around is None and spread != 1.0:
        raise InputError(f"spread must be left out without around, got {spread}")
    check_temperature(trained, temperature)
    if temperature != 1.0 and (
        around is not None or label is not None or sampler != "prior"
    ):
        raise InputError(
            "temperature must be left out where codes are not drawn from the prior, "
            f"got {temperature}"
        )
    is_table = len(trained.data_shape) == 1
    with_noise = with_noise or is_table
    key = draw_key(trained, Stream.FIGURES, seed=seed)
    labels = None
    if around is not None:
        x = _vary(trained, around, num, spread, key=key, with_noise=with_noise)
    else:
        num_classes = count_classes(trained, code_prior)
        is_of_class = label is not None and num_classes is None
        if not (is_of_class and sampler == "prior"):
            check_sampled(trained, sampler=sampler, code_prior=code_prior)
        labels = _choose_labels(trained, num, label, num_classes)
        if label is not None and num_classes is None and sampler == "prior":
            # The model takes no class: codes of training examples of the class.
            sampler = "aggregate"
        classes = None if num_classes is None else labels
        source = choose_sampler(
            trained,
            sampler,
            _training_examples(dataset, label) if sampler != "prior" else None,
            labels=classes,
            code_prior=code_prior,
            seed=seed,
        )
        drawn = trained.sample(
            num,
            key=key,
            with_noise=with_noise,
            sampler=source,
            temperature=temperature,
            condition=classes if trained.is_conditional else None,
        )
        x = np.asarray(drawn)
    check_numbers("a sample", x)
    x, schema = trained.preprocessing.inverse(x), trained.preprocessing.schema
    check_numbers("a sample in the data's units", x)
    return (x if schema is None else schema.snap(x)), labels


def count_classes(trained: Trained, code_prior: Trained | None = None) -> int | None:
    """The number of classes that samples can be conditioned on; None: unconditional.

    Those of a conditional model, or of the prior over a VQ-VAE's codes.
    """
    if trained.is_conditional:
        condition = ModelTraits.of(trained.model).condition
        return ConditionTraits.of(condition).num_classes
    if code_prior is None or not is_grid(trained):
        return None
    return ModelTraits.of(code_prior.model).num_classes


def needs_data(
    trained: Trained,
    *,
    sampler: SamplerName = "prior",
    label: int | None = None,
    around: Sequence[int] = (),
    code_prior: Trained | None = None,
) -> bool:
    """Whether `generate` must be given examples under these arguments.

    Raises:
      InputError: arguments that do not fit together or the model.
    """
    if len(around):
        _check_has_codes(trained)
        check_varied(trained)
        if label is not None or sampler != "prior":
            raise InputError("around must stand alone, without label and sampler")
        return True
    _check_has_codes(trained)
    num_classes = count_classes(trained, code_prior)
    is_of_class = label is not None and num_classes is None
    check_label(trained, label, num_classes)
    if is_of_class and sampler == "prior":
        check_sampler(trained, "aggregate")
        return True
    check_sampled(trained, sampler=sampler, code_prior=code_prior)
    return sampler != "prior"


def check_sampled(
    trained: Trained,
    *,
    sampler: SamplerName = "prior",
    code_prior: Trained | None = None,
) -> None:
    """Raises `InputError` for a model that a sampler has no codes for."""
    _check_has_codes(trained)
    check_sampler(trained, sampler)
    if trained.is_conditional and count_classes(trained, code_prior) is None:
        raise InputError(
            "a model that samples are generated from must be conditional on classes, "
            "or not conditional"
        )
    if sampler != "prior" or trained.is_conditional:
        return
    if is_grid(trained):
        choose_sampler(trained, "prior", code_prior=code_prior)
    elif trained.prior is None:
        raise InputError(
            f"sampler must be mixture or aggregate for the model "
            f"{type(trained.model).__name__}, which has no prior: sampler='mixture', "
            "or --sampler=mixture"
        )


def _check_has_codes(trained: Trained) -> None:
    if isinstance(trained.model, Classifier | CodePrior):
        raise InputError(
            "samples must be of a model that decodes codes, got "
            f"{type(trained.model).__name__}"
        )


def check_varied(trained: Trained) -> None:
    """Raises `InputError` for a model whose examples cannot be varied."""
    if is_grid(trained):
        raise InputError("around must be left out for a model whose code is a grid")
    if isinstance(trained.model, Autoencoder):
        raise InputError(
            "around must be left out for an autoencoder, whose code of an example is "
            "one point: sampler=aggregate decodes the codes of examples"
        )


def _choose_labels(
    trained: Trained, num: int, label: int | None, num_classes: int | None
) -> np.ndarray | None:
    if label is None:
        return None if num_classes is None else np.arange(num) % num_classes
    check_label(trained, label, num_classes)
    return np.full(num, label)


def check_label(trained: Trained, label: int | None, num_classes: int | None) -> None:
    """Raises `InputError` for a class that samples cannot be of."""
    if label is None:
        return
    label = as_integer("label", label, 0)
    if num_classes is not None:
        check_below("label", label, num_classes)
    elif is_grid(trained):
        raise InputError(
            "label must be left out for a prior over codes without classes, got "
            f"{label}"
        )


def _training_examples(dataset: Dataset | None, label: int | None) -> np.ndarray:
    """All training examples, or those of a class."""
    if dataset is None:
        raise InputError("dataset must be stated for codes of training examples")
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


def choose_around(dataset: Dataset, numbers: Sequence[int]) -> Split:
    """The test examples of these numbers, for `generate`'s ``around``.

    Raises:
      InputError: a number that no test example has.
    """
    rows = np.array(as_integers("around", numbers))
    if rows.min() < 0 or rows.max() >= len(dataset.test):
        raise InputError(
            f"around must be numbers from 0 to {len(dataset.test) - 1}, of test "
            f"examples, got {' '.join(map(str, rows))}"
        )
    return dataset.test[rows]


def _vary(
    trained: Trained,
    split: Split,
    num: int,
    spread: float,
    *,
    key: jax.Array,
    with_noise: bool,
) -> np.ndarray:
    """Samples whose codes lie around those of a split's examples."""
    check_varied(trained)

    def vary(draws: np.ndarray, mean: np.ndarray) -> np.ndarray:
        z = mean[None] + spread * (draws - mean[None])  # (n, A, D)
        return z.swapaxes(0, 1).reshape(-1, *mean.shape[1:])  # (A * n, D)

    blocks, number = [], 0
    for first in range(0, max(len(split), 1), CHUNK):
        block = split[first : first + CHUNK]  # A examples
        A = len(block)
        q = trained.encode(block.x, block.condition)
        mean = jax.device_get(mean_of(q))
        at_once = max(1, CHUNK // max(A, 1))
        parts = []
        for start in range(0, num, at_once):
            n = min(at_once, num - start)
            own = jax.random.fold_in(key, number) if number else key
            key_z, key_x = jax.random.split(own)
            draws = jax.device_get(sample_posterior(q, key_z, (n,)))
            z = jax.tree.map(vary, draws, mean)
            conditions = None
            if block.condition is not None:
                conditions = np.repeat(block.condition, n, axis=0)
            p = trained.decode(z, conditions)
            x = np.asarray(draw_examples(p, key_x) if with_noise else p.mean)
            parts.append(x.reshape(A, n, *x.shape[1:]))
            number += 1
        blocks.append(np.concatenate(parts, axis=1))  # (A, num, ...)
    x = np.concatenate(blocks)
    return x.reshape(-1, *x.shape[2:])  # (N * num, ...)


def check_output(
    output: Path,
    *,
    is_table: bool,
    is_series: bool = False,
    shape: Sequence[int] = (),
    num: int = 1,
) -> None:
    """Refuses a path that exists, cannot be written, or whose suffix does not fit.

    Of images ``(H, W, C)``, whose ``shape`` is stated, also what PNG cannot hold.
    """
    output = Path(output)
    suffix = output.suffix.lower()
    got = f"got {str(output)!r}"
    if is_series and suffix != ".npz":
        raise InputError(f"output must be .npz for series, {got}")
    if is_table and suffix not in (".npz", *TABLE_SUFFIXES):
        raise InputError(f"output must be .npz, .csv or .parquet for rows, {got}")
    if not is_table and suffix not in (".npz", ".png") and suffix[1:2].isalpha():
        raise InputError(
            "output must be .npz or a folder for images, or .png for all in one "
            f"picture, {got}"
        )
    if shape and suffix != ".npz" and not is_table and not is_series:
        if shape[-1] not in (1, 3):
            raise InputError(
                f"output must be .npz for images of {shape[-1]} channels, {got}"
            )
        rows, columns = _choose_tiles(num, shape)
        if suffix == ".png" and max(rows * shape[0], columns * shape[1]) > MOST_PIXELS:
            raise InputError(
                f"output must be .npz or a folder for {num:,} images of {shape[0]} x "
                f"{shape[1]} pixels, which one picture cannot show, {got}"
            )
    check_new_file(output)


def _choose_tiles(num: int, shape: Sequence[int]) -> tuple[int, int]:
    """Rows and columns of a picture of ``num`` images, about as high as it is wide."""
    columns = max(1, min(num, round(math.sqrt(num * shape[0] / shape[1]))))
    return -(-num // columns), columns


def write_examples(
    output: str | Path,
    x: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    columns: Sequence[str] | None = None,
    schema: TableSchema | None = None,
) -> None:
    """Writes examples to one file, or images to a folder; completely or not at all.

    Args:
      output: a new path. ``.npz``: arrays ``x`` and, of classes, ``labels``; ``.csv``
        and ``.parquet``: rows of a table, with the classes as a column; ``.png``: one
        picture of all images, side by side; otherwise a folder of PNG images,
        ``<number>[-<label>].png``.
      x: images ``(N, H, W, C)`` in [0, 1], series ``(N, T, F)`` or rows ``(N, F)``.
      labels: the class of each, ``(N,)``, or None.
      columns: names of the numbers of a row, for ``.csv`` and ``.parquet``.
      schema: of the table whose rows are written, such as ``run.preprocessing.schema``:
        with its columns, categories, integers and missing values.

    Raises:
      InputError: as `check_output`, or images that PNG cannot hold.
    """
    output = Path(output)
    check_output(
        output,
        is_table=x.ndim == 2,
        is_series=x.ndim == 3,
        shape=x.shape[1:],
        num=len(x),
    )
    output = output.expanduser()
    output.parent.mkdir(parents=True, exist_ok=True)
    suffix = output.suffix.lower()
    if suffix == ".npz":
        arrays = {"x": x} if labels is None else {"x": x, "labels": labels}
        # By a file: NumPy would append .npz to a name that ends in .NPZ.
        with atomic_file(output) as temporary, temporary.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
    elif suffix in TABLE_SUFFIXES:
        write_table(output, _as_table(x, labels, columns, schema))
    elif suffix == ".png":
        with atomic_file(output) as temporary:
            _as_picture(_tile(_as_levels(x))).save(temporary, format="PNG")
    else:
        _write_images(output, x, labels)


def _as_table(
    x: np.ndarray,
    labels: np.ndarray | None,
    columns: Sequence[str] | None,
    schema: TableSchema | None,
) -> object:
    """Rows as an Arrow table, with their labels where they have some."""
    import pyarrow as pa

    if schema is not None:
        table = schema.decode(x, labels)
        if labels is None or schema.label is not None:
            return table
    else:
        names = columns or [f"column {i + 1}" for i in range(x.shape[1])]
        table = pa.table({name: x[:, i] for i, name in enumerate(names)})
    if labels is not None and "label" not in table.column_names:
        table = table.append_column("label", pa.array(labels))
    return table


def _write_images(output: Path, x: np.ndarray, labels: np.ndarray | None) -> None:
    width = len(str(len(x) - 1))
    with atomic_folder(output) as folder:
        for i, image in enumerate(_as_levels(x)):
            name = f"{i:0{width}}" + ("" if labels is None else f"-{labels[i]}")
            _as_picture(image).save(folder / f"{name}.png")


def _as_levels(x: np.ndarray) -> np.ndarray:
    return np.round(np.clip(x, 0.0, 1.0) * 255).astype(np.uint8)


def _tile(levels: np.ndarray) -> np.ndarray:
    """Images ``(N, H, W, C)`` side by side, ``(rows*H*s, columns*W*s, C)``; rest white.

    Small images are enlarged s times, by whole pixels.
    """
    N, H, W, C = levels.shape
    rows, columns = _choose_tiles(N, (H, W))
    tiles = np.full((rows * columns, H, W, C), 255, np.uint8)
    tiles[:N] = levels
    grid = tiles.reshape(rows, columns, H, W, C).swapaxes(1, 2)  # (R, H, columns, W, C)
    picture = grid.reshape(rows * H, columns * W, C)  # (rows*H, columns*W, C)
    scale = max(1, SIDE_OF_SMALL // max(picture.shape))
    return picture.repeat(scale, axis=0).repeat(scale, axis=1)


def _as_picture(image: np.ndarray) -> "Image":
    import PIL.Image

    return PIL.Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)


def write_codes(codes: Dataset, folder: str | Path) -> list[Path]:
    """Writes the codes of all splits to ``codes.npz`` and ``codes.parquet``.

    Args:
      codes: as `flaxvae.latent.encode_dataset` returns it.
      folder: where the two files go.

    Returns:
      The two paths. Both files hold the columns of `locate_examples` beside the codes:
      ``codes`` ``(N, ...)`` in the first, columns ``z1``, ``z2``, ... in the second.
    """
    import pyarrow as pa
    import pyarrow.parquet

    columns = locate_examples(codes)
    z = np.concatenate([split.x for split in codes.splits if len(split)])
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(folder / "codes.npz") as temporary:
        np.savez(temporary, allow_pickle=False, codes=z, **columns)
    flat = z.reshape(len(z), -1)
    numbers = {f"z{d + 1}": flat[:, d] for d in range(flat.shape[1])}
    with atomic_file(folder / "codes.parquet") as temporary:
        pyarrow.parquet.write_table(pa.table({**columns, **numbers}), temporary)
    return [folder / "codes.npz", folder / "codes.parquet"]
