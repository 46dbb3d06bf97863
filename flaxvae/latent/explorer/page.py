"""The explorer of a run: its latent space and its decoder in one HTML file.

What is packed: the decoder, and on request the encoder, as programs of `translate`;
the codes of test examples as float16; the examples as one picture, or as numbers.
"""

import base64
import dataclasses
import functools
import html
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.batch import Batch
from flaxvae.capabilities import (
    CodeTraits,
    ConditionTraits,
    Decodes,
    Encodes,
    ModelTraits,
    PriorTraits,
)
from flaxvae.checks import InputError, as_integer
from flaxvae.data import Dataset, Split
from flaxvae.data.schema import MISSING
from flaxvae.distributions import Distribution, Normal
from flaxvae.distributions.divergences import has_kl_per_dimension, kl_per_dimension
from flaxvae.files import atomic_file
from flaxvae.latent.classes import name_class
from flaxvae.latent.embeddings import fit_pca, tsne
from flaxvae.latent.encode import codebook_size, encode_indices, encode_means
from flaxvae.latent.explorer.program import translate
from flaxvae.latent.keys import draw_key
from flaxvae.latent.levels import encode_levels, flatten_levels
from flaxvae.latent.paths import rank_dimensions
from flaxvae.models import VQVAE
from flaxvae.models.bind import apply_bound
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn.quantizers import Quantized
from flaxvae.training import RunFolder, Trained
from flaxvae.training.keys import Stream
from flaxvae.types import Json

PAGE = "explorer.html"
POINTS = 10_000
CODE_BYTES = 1_600_000  # of means and standard deviations in float16
IMAGE_BYTES = 1_400_000  # of the picture with the examples
ROW_BYTES = 1_000_000  # of examples that are no images, in float16
PRIOR_DRAWS = 512  # of a prior that is not N(0, I), for all classes together
MOST_ENTRIES = 2048  # whose numbers float16 has
GRID = 65  # values between which a column's map to its own units is interpolated
SHOWN = ("elbo", "kl", "log_likelihood", "nll", "active_units", "accuracy")


@dataclass(frozen=True, eq=False)
class _Points:
    """The examples of the page and what is known about them."""

    split: Split
    numbers: np.ndarray  # of the examples in their split, (N,)
    codes: np.ndarray  # (N, D), all levels side by side
    std: np.ndarray | None  # (N, D), of q(z|x)
    kl: np.ndarray | None  # (D,), nats


def write_explorer(
    trained: Trained,
    dataset: Dataset,
    path: str | Path,
    *,
    title: str | None = None,
    num_points: int = POINTS,
    with_encoder: bool = False,
    with_tsne: bool = False,
) -> Path:
    """Writes the page; it works offline and appears complete or not at all.

    Args:
      trained: a model with codes and a decoder, of one or several levels.
      dataset: whose test examples are shown; without any, those of training.
      path: of the HTML file.
      title: of the page. Default: the name of the data set.
      num_points: test examples, at most; fewer where codes are long, so that the file
        stays small.
      with_encoder: whether the encoder is packed, too, so that the page encodes images
        that are dropped on it.
      with_tsne: whether codes are also embedded by t-SNE, which takes minutes.

    Returns:
      The path.

    Raises:
      InputError: a model without a decoder, a large codebook, no examples, or a
        primitive that the page cannot run.
      NonFiniteError: parameters that are infinite or NaN.
    """
    path = Path(path).expanduser()
    page = make_page(
        trained,
        dataset,
        title=title or dataset.name,
        num_points=num_points,
        with_encoder=with_encoder,
        with_tsne=with_tsne,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def make_page(
    trained: Trained,
    dataset: Dataset,
    *,
    title: str,
    num_points: int = POINTS,
    with_encoder: bool = False,
    with_tsne: bool = False,
) -> str:
    """The page as HTML; see `write_explorer`."""
    content = describe_explorer(
        trained,
        dataset,
        title=title,
        num_points=num_points,
        with_encoder=with_encoder,
        with_tsne=with_tsne,
    )
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    template = resources.files(__package__).joinpath("template.html").read_text("utf-8")
    before, after = template.split("__DATA__")
    before = before.replace("__TITLE__", html.escape(title))
    return before + text.replace("<", "\\u003c") + after


def describe_explorer(
    trained: Trained,
    dataset: Dataset,
    *,
    title: str,
    num_points: int = POINTS,
    with_encoder: bool = False,
    with_tsne: bool = False,
) -> dict[str, Json]:
    """What the page shows, as JSON; see `write_explorer`."""
    num_points = as_integer("num_points", num_points, 2)
    model = trained.model
    trained.check_finite()
    if isinstance(model, VQVAE) and codebook_size(trained) > MOST_ENTRIES:
        raise InputError(
            f"the explorer must be of a codebook of {MOST_ENTRIES} entries at most, "
            f"got {codebook_size(trained)}"
        )
    if not (isinstance(model, Decodes) and isinstance(model, Encodes)):
        raise InputError(
            "the explorer must be of a model with encode and decode, got "
            f"{type(model).__name__}"
        )
    variables = jax.tree.map(jnp.asarray, trained.variables)  # of NumPy where loaded
    trained = dataclasses.replace(trained, variables=variables)
    decoder = _decoder(trained)  # refuses what cannot be run before examples are read
    encoder = _encoder(trained) if with_encoder else None
    points = _choose_points(trained, dataset, num_points)
    codes = points.codes
    spread = codes.std(axis=0)
    levels = _level_sizes(trained)
    top = levels[0]
    order = rank_dimensions(spread[:top] if points.kl is None else points.kl)
    plane = codes[:, :top]
    content: dict[str, Json] = {
        "title": title,
        "model": type(model).__name__,
        "shape": list(trained.data_shape),
        "decoder": decoder,
        "encoder": encoder,
        "levels": list[Json](levels),
        "order": [int(d) for d in order],
        "kl": None if points.kl is None else _floats(points.kl),
        "mean": _floats(codes.mean(axis=0)),
        "spread": _floats(spread),
        "count": len(codes),
        "numbers": points.numbers.tolist(),
        "codes": _halves(codes),
        "std": None if points.std is None else _halves(points.std),
        "examples": _pack_examples(trained, points.split.x),
        "columns": _describe_columns(trained, dataset, points.split.x),
        "pca": None,
        "tsne": None,
        "codebook": None,
        "prior": _describe_prior(trained),
        "facts": _find_facts(trained),
        "workdir": "RUN" if trained.workdir is None else trained.workdir.name,
    }
    if isinstance(model, VQVAE):
        content |= _describe_codebook(trained, points)
    elif top > 2:
        axes = fit_pca(plane, 2)
        content["pca"] = {
            "mean": _floats(axes.mean),
            "directions": _floats(axes.directions.T),
            "share": _floats(axes.share),
        }
    if top > 2 and with_tsne and not isinstance(model, VQVAE):
        xy, rows = tsne(plane)
        content["tsne"] = {"rows": rows.tolist(), "xy": _floats(xy)}
    return content | _describe_classes(trained, dataset, points.split)


def _decoder(trained: Trained) -> dict[str, Json]:
    """Codes, all levels in one row, and a condition -> the mean of p(x|z).

    With several levels ``kept`` says how many are read; the others are drawn from the
    prior, with noise of this ``temperature``.
    """
    shapes = trained.level_shapes
    width = sum(map(math.prod, shapes))
    inputs = {"z": jax.ShapeDtypeStruct((1, width), jnp.float32)}
    condition = _condition_input(trained)
    if trained.has_levels:
        inputs["kept"] = jax.ShapeDtypeStruct((), jnp.int32)
        inputs["temperature"] = jax.ShapeDtypeStruct((), jnp.float32)

        def decode(
            z: jax.Array, kept: jax.Array, temperature: jax.Array, key: jax.Array
        ) -> jax.Array:
            ends = np.cumsum([math.prod(shape) for shape in shapes])[:-1]
            parts = jnp.split(z, ends, axis=1)
            given = [p.reshape(1, *s) for p, s in zip(parts, shapes, strict=True)]

            def mean(vae: HierarchicalVAE) -> jax.Array:
                codes = vae.prior().sample(
                    key, (1,), given=given, kept=kept, temperature=temperature
                )
                return vae.decode(codes).mean

            apply = functools.partial(trained.model.apply, method=mean)
            return cast(jax.Array, apply(trained.variables))

        return translate(decode, inputs, ["x"], key=jax.random.key(0))
    if condition is not None:
        inputs["condition"] = condition

    if isinstance(trained.model, VQVAE):
        inputs["z"] = jax.ShapeDtypeStruct((1, *_level_sizes(trained)), jnp.float32)
        grid = trained.code_shape[:-1]

        def decode_entries(z: jax.Array) -> jax.Array:
            def mean(vae: VQVAE, numbers: jax.Array) -> jax.Array:
                return vae.decode(vae.lookup(numbers)).mean

            numbers = z.astype(jnp.int32).reshape(1, *grid)
            apply = functools.partial(trained.model.apply, method=mean)
            return cast(jax.Array, apply(trained.variables, numbers))

        return translate(decode_entries, inputs, ["x"])

    def decode_one(z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        codes = Batch(z.reshape(1, *trained.code_shape), condition=condition)
        return apply_bound(
            trained.model,
            trained.variables,
            codes,
            lambda vae, z: _mean(vae.decode(z)),
        )

    return translate(decode_one, inputs, ["x"])


def _encoder(trained: Trained) -> dict[str, Json]:
    """What the model sees, and a condition -> the mean code, all levels in one row."""
    inputs = {"x": jax.ShapeDtypeStruct((1, *trained.data_shape), jnp.float32)}
    condition = _condition_input(trained)
    if condition is not None:
        inputs["condition"] = condition

    def encode(x: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        batch = Batch(x, condition=condition)
        q = apply_bound(
            trained.model, trained.variables, batch, lambda vae, x: vae.encode(x)
        )
        is_grid = isinstance(q, Quantized)
        levels = [q.indices * 1.0] if is_grid else jax.tree.leaves(q.mean)
        return jnp.concatenate([level.reshape(1, -1) for level in levels], axis=1)

    return translate(encode, inputs, ["z"])


def _mean(p: object) -> jax.Array:
    return cast(Distribution, p).mean


def _condition_input(trained: Trained) -> jax.ShapeDtypeStruct | None:
    """The shape and type of one example's condition."""
    condition = ModelTraits.of(trained.model).condition
    if condition is None:
        return None
    width = ConditionTraits.of(condition).width
    if width is None:
        return jax.ShapeDtypeStruct((1,), jnp.int32)
    return jax.ShapeDtypeStruct((1, width), jnp.float32)


def _choose_points(trained: Trained, dataset: Dataset, most: int) -> _Points:
    """Evenly spaced examples, as many as there is room for, and their codes."""
    split = dataset.test if len(dataset.test) else dataset.train
    if len(split) < 2:
        raise InputError(
            f"the explorer must be of 2 test examples or more, got {len(split)}"
        )
    width = sum(_level_sizes(trained))
    is_grid = isinstance(trained.model, VQVAE)
    has_std = not trained.has_levels and not is_grid
    room = CODE_BYTES // (2 * width * (1 + has_std))
    count = max(min(most, len(split), room), min(2, len(split)))
    numbers = np.unique(np.linspace(0, len(split) - 1, count).astype(np.int64))
    chosen = split[numbers]
    if is_grid:
        codes = encode_indices(trained, chosen).x.reshape(len(chosen), -1)
        return _Points(chosen, numbers, codes.astype(np.float32), None, None)
    if trained.has_levels:
        codes = flatten_levels(encode_levels(trained, chosen.x))
        return _Points(chosen, numbers, codes, None, None)
    q = trained.encode(chosen.x, chosen.condition)
    traits = CodeTraits.of(q)
    codes = np.asarray(q.mean).reshape(len(chosen), -1)
    if not (traits.is_factorized and traits.are_vectors):
        return _Points(chosen, numbers, codes, None, None)
    normal, prior, kl = cast(Normal, q), trained.prior, None
    if prior is None and _has_normal_prior(trained):  # of a conditional model
        prior = Normal(jnp.zeros(width), jnp.zeros(width))
    if has_kl_per_dimension(normal, prior):
        kl = np.asarray(kl_per_dimension(normal, cast(Normal, prior)).mean(axis=0))
    return _Points(chosen, numbers, codes, np.asarray(normal.std), kl)


def _level_sizes(trained: Trained) -> list[int]:
    """Numbers of each level's code; of a VQ-VAE one per place of the grid."""
    if isinstance(trained.model, VQVAE):
        return [math.prod(trained.code_shape[:-1])]
    return [math.prod(shape) for shape in trained.level_shapes]


def _describe_codebook(trained: Trained, points: _Points) -> dict[str, Json]:
    """The grid of entries; codes have their places by the PCA of their entries."""
    entries = encode_means(trained, points.split).reshape(len(points.codes), -1)
    axes = fit_pca(entries, 2)
    usual = [np.bincount(column.astype(int)).argmax() for column in points.codes.T]
    rows, *columns = trained.code_shape[:-1]
    return {
        "codebook": {
            "size": codebook_size(trained),
            "across": columns[0] if columns else rows,
            "xy": _floats(axes.project(entries)),
        },
        "mean": [int(v) for v in usual],
        "order": list[Json](range(len(usual))),
    }


def _describe_prior(trained: Trained) -> Json:
    """``"normal"``, draws of another prior by class, or None without a prior."""
    if _has_normal_prior(trained):
        return "normal"
    traits = ModelTraits.of(trained.model)
    condition = traits.condition
    classes = None if condition is None else ConditionTraits.of(condition).num_classes
    if traits.prior is None or (condition is not None and classes is None):
        return None
    key = draw_key(trained, Stream.FIGURES)
    count = PRIOR_DRAWS // (classes or 1) + 1
    draws = []
    for label in range(classes or 1):
        given = None if classes is None else jnp.full((1,), label)
        prior = apply_bound(
            trained.model,
            trained.variables,
            Batch(jnp.zeros((1,)), condition=given),
            lambda vae, _: vae.prior(),
        )
        codes = jax.tree.leaves(prior.sample(key, (count,)))
        draws.append(np.concatenate([np.reshape(c, (count, -1)) for c in codes], 1))
    return {"count": count, "draws": _halves(np.stack(draws))}


def _has_normal_prior(trained: Trained) -> bool:
    """Whether the prior, or that of the top level, is known to be N(0, I)."""
    model = trained.model
    is_deep = isinstance(model, HierarchicalVAE)
    prior = model.top if is_deep else ModelTraits.of(model).prior
    return PriorTraits.of(prior).is_standard is True


def _describe_classes(
    trained: Trained, dataset: Dataset, split: Split
) -> dict[str, Json]:
    """Classes, their colours, and what a conditional model takes."""
    from flaxvae.latent.figures.style import NO_CLASS, class_colors

    condition = ModelTraits.of(trained.model).condition
    found: dict[str, Json] = {"labels": None, "classes": [], "condition": None}
    count = 0
    if split.labels is not None:
        labels = np.asarray(split.labels)
        count = max(int(labels.max()) + 1, len(dataset.class_names or ()))
        found["labels"] = labels.tolist()
    if condition is not None:
        traits = ConditionTraits.of(condition)
        if traits.num_classes is not None:
            count = max(count, traits.num_classes)
            found["condition"] = {"classes": traits.num_classes}
        elif split.condition is not None:
            vectors = np.asarray(split.condition, np.float32)
            found["condition"] = {"vectors": _halves(vectors), "width": traits.width}
    found["classes"] = [name_class(i, dataset.class_names) for i in range(count)]
    found["colors"] = list[Json](class_colors(count))
    return found | {"no_class": NO_CLASS}


def _pack_examples(trained: Trained, x: np.ndarray) -> dict[str, Json]:
    """The examples as the model sees them: a picture of images, or numbers."""
    seen = np.asarray(trained.preprocessing.prepare(np.asarray(x)), np.float32)
    if seen.ndim == 4 and seen.shape[-1] in (1, 3):
        return _pack_images(np.clip(np.nan_to_num(seen), 0.0, 1.0))
    count = min(len(seen), max(ROW_BYTES // (2 * math.prod(seen.shape[1:])), 1))
    kept = np.nan_to_num(seen[:count], nan=0.0).reshape(count, -1)
    return {"count": count, "rows": _halves(kept)}


def _pack_images(images: np.ndarray) -> dict[str, Json]:
    """As many images as there is room for, side by side in one picture."""
    from PIL import Image

    count, is_grey = len(images), images.shape[-1] == 1
    while True:
        chosen = images[:count]
        N, H, W, C = chosen.shape
        columns = max(math.ceil(math.sqrt(N * H / W)), 1)
        rows = -(-N // columns)
        filled = np.zeros((rows * columns, H, W, C), np.float32)
        filled[:N] = chosen
        tiles = filled.reshape(rows, columns, H, W, C).swapaxes(1, 2)
        sheet = tiles.reshape(rows * H, columns * W, C)
        file = io.BytesIO()
        if is_grey:  # 16 grey levels take half of the room of 256
            levels = np.round(sheet[..., 0] * 15).astype(np.uint8)
            picture = Image.fromarray(levels).convert("L")
            indexed = Image.frombytes("P", picture.size, picture.tobytes())
            indexed.putpalette([v for i in range(16) for v in (17 * i,) * 3])
            indexed.save(file, "PNG", bits=4, optimize=True)
            kind = "image/png"
        else:
            colours = np.round(sheet * 255).astype(np.uint8)
            Image.fromarray(colours).save(file, "WEBP", quality=82, method=2)
            kind = "image/webp"
        size = file.tell()
        if size <= IMAGE_BYTES or count <= 2:
            break
        count = max(int(count * 0.95 * IMAGE_BYTES / size), 2)
    data = base64.b64encode(file.getvalue()).decode()
    return {"count": N, "across": columns, "sheet": f"data:{kind};base64,{data}"}


def _describe_columns(trained: Trained, dataset: Dataset, x: np.ndarray) -> Json:
    """The columns of a table or the features of series, in their own units.

    ``grid`` and ``own``: equally spaced values that the model sees, from the first to
    the last of ``grid``, and what they are in the data's units.
    """
    if len(trained.data_shape) == 3:
        return None
    F = trained.data_shape[-1]
    seen = np.asarray(trained.preprocessing.prepare(np.asarray(x)), np.float64)
    seen = seen.reshape(-1, F)
    low, high = np.nanmin(seen, axis=0), np.nanmax(seen, axis=0)
    low, high = (np.nan_to_num(v) for v in (low, high))
    high = np.where(high > low, high, low + 1)
    grid = low + (high - low) * np.linspace(0, 1, GRID)[:, None]  # (GRID, F)
    own = np.asarray(trained.preprocessing.inverse(grid.astype(np.float32)))
    own = np.asarray(own, np.float64)

    def number(name: str, i: int, kind: str) -> dict[str, Json]:
        return {
            "name": name,
            "kind": kind,
            "feature": i,
            "grid": [float(low[i]), float(high[i])],
            "own": _floats(own[:, i]),
        }

    schema = trained.preprocessing.schema
    if schema is None:
        names = dataset.columns or ()
        if len(names) != F:
            names = tuple(f"x{i + 1}" for i in range(F))
        return [number(str(name), i, "real") for i, name in enumerate(names)]
    found: list[Json] = []
    for column, features, _ in schema.slices():
        first = features.start
        if column.kind == "category":
            values = [MISSING if v is None else str(v) for v in column.values]
            found.append(
                {
                    "name": column.name,
                    "kind": "category",
                    "feature": first,
                    "values": list[Json](values),
                }
            )
            continue
        described = number(column.name, first, column.kind)
        if column.kind == "binary":
            pair = ("no", "yes") if column.type == "bool" else column.values or (0, 1)
            described["values"] = [str(v) for v in pair]
        found.append(described)
    return found


def _find_facts(trained: Trained) -> Json:
    """Numbers of the run for the help panel."""
    facts: list[Json] = [
        ["parameters", trained.parameters],
        ["epochs", trained.epochs],
        ["latent dimensions", trained.latent_dim],
    ]
    summary = (trained.workdir and RunFolder(trained.workdir).summary) or {}
    test = summary.get("test", summary)
    if isinstance(test, Mapping):
        for name in SHOWN:
            value = test.get(name)
            if isinstance(value, int | float) and math.isfinite(value):
                facts.append([f"test {name.replace('_', ' ')}", value])
    return facts


def _floats(values: np.ndarray) -> list[Json]:
    """Numbers with six digits."""
    flat = np.asarray(values, np.float64).reshape(-1)
    return [float(f"{v:.6g}") for v in flat]


def _halves(values: np.ndarray) -> str:
    """Numbers as float16 in base64."""
    most = float(np.finfo(np.float16).max)
    array = np.clip(np.asarray(values, np.float32), -most, most)
    return base64.b64encode(array.astype("<f2").tobytes()).decode()
