"""The explorer of a run: its latent space and its decoder in one HTML file.

What is packed: the decoder, and on request the encoder, as programs of `translate`;
the codes of test examples as float16; the examples as one picture, or as numbers.
"""

import dataclasses
import functools
import html
import json
import math
import shlex
from collections.abc import Mapping, Sequence
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
from flaxvae.checks import InputError
from flaxvae.data import Dataset, Split
from flaxvae.distributions import Distribution, Normal
from flaxvae.distributions.divergences import has_kl_per_dimension
from flaxvae.files import atomic_file
from flaxvae.latent.context import mean_kl_per_dimension
from flaxvae.latent.embeddings import fit_pca, tsne, umap
from flaxvae.latent.encode import codebook_size, encode_indices, encode_means
from flaxvae.latent.explorer.examples import (
    describe_classes,
    describe_columns,
    pack_examples,
    pack_floats,
    pack_halves,
)
from flaxvae.latent.explorer.program import translate
from flaxvae.latent.keys import draw_key
from flaxvae.latent.levels import encode_levels, flatten_levels, level_kl_per_dimension
from flaxvae.models import VQVAE
from flaxvae.models.bind import apply_bound
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn.quantizers import Quantized
from flaxvae.settings import check_settings, setting
from flaxvae.training import RunFolder, Trained
from flaxvae.training.keys import Stream
from flaxvae.types import Json

PAGE = "explorer.html"
POINTS = 10_000
CODE_BYTES = 2_600_000  # of means and standard deviations in float16
PRIOR_DRAWS = 512  # of a prior that is not N(0, I), for all classes together
MOST_ENTRIES = 2048  # whose numbers float16 has
EMBEDDINGS = {"t-SNE": tsne, "UMAP": umap}
COMMAND = "python -m experiments.explore"
SHOWN = ("elbo", "kl", "log_likelihood", "nll", "active_units", "accuracy")


@dataclass(frozen=True, kw_only=True)
class ExplorerConfig:
    """What the explorer's page contains."""

    num_points: int = setting(POINTS, at_least=2)
    """Test examples on the page, at most; fewer where codes are long."""
    with_encoder: bool = False
    """Pack the encoder, too: the page then encodes images that are dropped on it."""
    with_tsne: bool = False
    """Also arrange codes by t-SNE; takes minutes."""
    with_umap: bool = False
    """Also arrange codes by UMAP (extra umap)."""

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def embeddings(self) -> list[str]:
        """The names of the arrangements, see `EMBEDDINGS`."""
        chosen = {"t-SNE": self.with_tsne, "UMAP": self.with_umap}
        return [name for name, is_chosen in chosen.items() if is_chosen]

    @property
    def flags(self) -> list[str]:
        """The flags of `experiments.explore` that are not at their defaults."""
        found = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is True:
                found.append(f"--{field.name}")
            elif value != field.default:
                found.append(f"--{field.name}={value}")
        return found


@dataclass(frozen=True, eq=False)
class _Points:
    """The examples of the page and what is known about them."""

    split: Split
    numbers: np.ndarray  # of the examples in their split, (N,)
    codes: np.ndarray  # (N, D), all levels side by side
    std: np.ndarray | None  # (N, D), of q(z|x)
    kl: np.ndarray | None  # (D,), nats; of all levels side by side


def write_explorer(
    trained: Trained,
    dataset: Dataset,
    path: str | Path,
    config: ExplorerConfig | None = None,
    *,
    title: str | None = None,
) -> Path:
    """Writes the page; it works offline and appears complete or not at all.

    Args:
      trained: a model with codes and a decoder, of one or several levels.
      dataset: whose test examples are shown; without any, those of training.
      path: of the HTML file.
      config: what the page contains.
      title: of the page. Default: the name of the data set.

    Returns:
      The path.

    Raises:
      InputError: a model without a decoder, a large codebook, no examples, a choice
        without effect, or a primitive that the page cannot run.
      NonFiniteError: parameters that are infinite or NaN.
    """
    path = Path(path).expanduser()
    page = make_page(trained, dataset, config, title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def make_page(
    trained: Trained,
    dataset: Dataset,
    config: ExplorerConfig | None = None,
    *,
    title: str | None = None,
) -> str:
    """The page as HTML; see `write_explorer`."""
    content = describe_explorer(trained, dataset, config, title=title)
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    template = resources.files(__package__).joinpath("template.html").read_text("utf-8")
    before, after = template.split("__DATA__")
    before = before.replace("__TITLE__", html.escape(str(content["title"])))
    return before + text.replace("<", "\\u003c") + after


def describe_explorer(
    trained: Trained,
    dataset: Dataset,
    config: ExplorerConfig | None = None,
    *,
    title: str | None = None,
) -> dict[str, Json]:
    """What the page shows, as JSON; see `write_explorer`."""
    config = ExplorerConfig() if config is None else config
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
    levels = _level_sizes(trained)
    top = levels[0]
    is_grid = isinstance(model, VQVAE)
    if config.embeddings and (is_grid or top < 3):
        raise InputError(
            "with_tsne and with_umap must be left out unless codes are vectors of more "
            f"than 2 dimensions, got {' '.join(config.flags)}"
        )
    decoder = _decoder(trained)  # refuses what cannot be run before examples are read
    encoder = _encoder(trained) if config.with_encoder else None
    points = _choose_points(trained, dataset, config.num_points)
    is_image = len(trained.data_shape) == 3
    if encoder and not is_image and (points.std is not None or not encoder["noise"]):
        raise InputError(
            "with_encoder must be left out for data that are not images, unless the "
            "posterior needs it: no image can be dropped on their page"
        )
    codes = points.codes
    spread = codes.std(axis=0)
    workdir = "RUN" if trained.workdir is None else trained.workdir.name
    content: dict[str, Json] = {
        "title": title or dataset.name,
        "model": type(model).__name__,
        "shape": list(trained.data_shape),
        "decoder": decoder,
        "encoder": encoder,
        "levels": list[Json](levels),
        "order": _rank(spread if points.kl is None else points.kl, spread, levels),
        "kl": None if points.kl is None else pack_floats(points.kl),
        "mean": pack_floats(codes.mean(axis=0)),
        "spread": pack_floats(spread),
        "count": len(codes),
        "numbers": points.numbers.tolist(),
        "codes": pack_halves(codes),
        "std": None if points.std is None else pack_halves(points.std),
        "examples": pack_examples(trained, points.split.x),
        "columns": describe_columns(trained, dataset, points.split.x),
        "pca": None,
        "embeddings": [],
        "codebook": None,
        "prior": _describe_prior(trained),
        "facts": _find_facts(trained),
        "command": shlex.join(
            [*COMMAND.split(), f"--workdir={workdir}", *config.flags],
        ),
    }
    if is_grid:
        content |= _describe_codebook(trained, points)
    elif top > 2:
        plane = codes[:, :top]
        axes = fit_pca(plane, 2)
        content["pca"] = {
            "mean": pack_floats(axes.mean),
            "directions": pack_floats(axes.directions.T),
            "share": pack_floats(axes.share),
        }
        content["embeddings"] = [_embed(name, plane) for name in config.embeddings]
    return content | describe_classes(trained, dataset, points.split)


def _rank(kl: np.ndarray, spread: np.ndarray, levels: Sequence[int]) -> list[Json]:
    """The dimensions of each level, those of largest KL, then spread, first."""
    ends = np.cumsum(levels)
    found: list[Json] = []
    for start, end in zip(ends - levels, ends, strict=True):
        order = np.lexsort((-spread[start:end], -kl[start:end])) + start
        found.append([int(d) for d in order])
    return found


def _embed(name: str, codes: np.ndarray) -> dict[str, Json]:
    """Places of an arrangement in a plane, and the numbers of their codes."""
    xy, rows = EMBEDDINGS[name](codes)
    return {"name": name, "rows": rows.tolist(), "xy": pack_floats(xy)}


def _decoder(trained: Trained) -> dict[str, Json]:
    """Codes, all levels in one row, and a condition -> the mean of p(x|z).

    With several levels ``kept`` says how many are read; the others are drawn from the
    prior, with noise of this ``temperature``.
    """
    if trained.has_levels:
        return _decoder_of_levels(trained)
    if isinstance(trained.model, VQVAE):
        return _decoder_of_entries(trained)
    inputs = {"z": _row_of_numbers(math.prod(trained.code_shape))}
    condition = _condition_input(trained)
    if condition is not None:
        inputs["condition"] = condition

    def decode(z: jax.Array, condition: jax.Array | None = None) -> jax.Array:
        codes = Batch(z.reshape(1, *trained.code_shape), condition=condition)
        return apply_bound(
            trained.model,
            trained.variables,
            codes,
            lambda vae, z: _mean(vae.decode(z)),
        )

    return translate(decode, inputs, ["x"])


def _decoder_of_levels(trained: Trained) -> dict[str, Json]:
    shapes = trained.level_shapes
    sizes = [math.prod(shape) for shape in shapes]
    inputs = {
        "z": _row_of_numbers(sum(sizes)),
        "kept": jax.ShapeDtypeStruct((), jnp.int32),
        "temperature": jax.ShapeDtypeStruct((), jnp.float32),
    }

    def decode(
        z: jax.Array, kept: jax.Array, temperature: jax.Array, key: jax.Array
    ) -> jax.Array:
        parts = jnp.split(z, np.cumsum(sizes)[:-1], axis=1)
        given = [p.reshape(1, *s) for p, s in zip(parts, shapes, strict=True)]

        def mean(vae: HierarchicalVAE) -> jax.Array:
            codes = vae.prior().sample(
                key, (1,), given=given, kept=kept, temperature=temperature
            )
            return vae.decode(codes).mean

        apply = functools.partial(trained.model.apply, method=mean)
        return cast(jax.Array, apply(trained.variables))

    return translate(decode, inputs, ["x"], key=jax.random.key(0))


def _decoder_of_entries(trained: Trained) -> dict[str, Json]:
    """That of a VQ-VAE, from the numbers of codebook entries."""
    grid = trained.code_shape[:-1]

    def decode(z: jax.Array) -> jax.Array:
        def mean(vae: VQVAE, numbers: jax.Array) -> jax.Array:
            return vae.decode(vae.lookup(numbers)).mean

        numbers = z.astype(jnp.int32).reshape(1, *grid)
        apply = functools.partial(trained.model.apply, method=mean)
        return cast(jax.Array, apply(trained.variables, numbers))

    return translate(decode, {"z": _row_of_numbers(*_level_sizes(trained))}, ["x"])


def _row_of_numbers(count: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, count), jnp.float32)


def _encoder(trained: Trained) -> dict[str, Json]:
    """What the model sees, and a condition -> a code of q(z|x), all levels in one row.

    The noise of the draw is an input: zeros give the mean.
    """
    inputs = {"x": jax.ShapeDtypeStruct((1, *trained.data_shape), jnp.float32)}
    condition = _condition_input(trained)
    if condition is not None:
        inputs["condition"] = condition

    def encode(
        x: jax.Array, key: jax.Array, condition: jax.Array | None = None
    ) -> jax.Array:
        batch = Batch(x, condition=condition)
        q = apply_bound(
            trained.model, trained.variables, batch, lambda vae, x: vae.encode(x)
        )
        is_grid = isinstance(q, Quantized)
        levels = [q.indices * 1.0] if is_grid else jax.tree.leaves(q.sample(key))
        return jnp.concatenate([level.reshape(1, -1) for level in levels], axis=1)

    return translate(encode, inputs, ["z"], key=jax.random.key(0))


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
        kl = level_kl_per_dimension(
            trained, chosen, key=draw_key(trained, Stream.FIGURES)
        )
        return _Points(chosen, numbers, codes, None, kl)
    q = trained.encode(chosen.x, chosen.condition)
    traits = CodeTraits.of(q)
    codes = np.asarray(q.mean).reshape(len(chosen), -1)
    if not (traits.is_factorized and traits.are_vectors):
        return _Points(chosen, numbers, codes, None, None)
    normal, prior, kl = cast(Normal, q), trained.prior, None
    if prior is None and _has_normal_prior(trained):  # of a conditional model
        prior = Normal(jnp.zeros(width), jnp.zeros(width))
    if has_kl_per_dimension(normal, prior):
        kl = np.asarray(mean_kl_per_dimension(normal, cast(Normal, prior)))
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
            "xy": pack_floats(axes.project(entries)),
        },
        "mean": [int(v) for v in usual],
        "order": [list[Json](range(len(usual)))],
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
    return {"count": count, "draws": pack_halves(np.stack(draws))}


def _has_normal_prior(trained: Trained) -> bool:
    """Whether the prior, or that of the top level, is known to be N(0, I)."""
    model = trained.model
    is_deep = isinstance(model, HierarchicalVAE)
    prior = model.top if is_deep else ModelTraits.of(model).prior
    return PriorTraits.of(prior).is_standard is True


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
