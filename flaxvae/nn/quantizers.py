"""Quantizers: a grid of features -> a grid of codebook entries."""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from flaxvae.checks import check_above, check_at_least, check_below, check_choice
from flaxvae.collectives import gather_rows, sum_over_devices
from flaxvae.dtypes import narrow

LEAST_USE = 1e-12  # moving average of an entry's uses; below it rounding decides

Distance = Literal["euclidean", "cosine"]
DISTANCES: tuple[Distance, ...] = get_args(Distance)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Quantized:
    """The code of each example: a grid of entries of a codebook of M vectors.

    Attributes:
      mean: the entries, ``(B, H', W', D)``, with straight-through gradients: those of
        the entries are passed on to the features unchanged.
      indices: the number of each entry, ``(B, H', W')`` int32.
      commitment: squared distances between features and entries, summed over an
        example, ``(B,)``; its gradient reaches the features only.
      codebook_loss: the same values; their gradient reaches the entries only.
      num_codes: M, ``()`` int32.
    """

    mean: jax.Array
    indices: jax.Array
    commitment: jax.Array
    codebook_loss: jax.Array
    num_codes: jax.Array

    @property
    def event_ndim(self) -> int:
        """Number of axes of a code: 3 for a grid of vectors, 2 for a row."""
        return self.mean.ndim - 1

    @property
    def mode(self) -> jax.Array:
        """The entries, as `mean`."""
        return self.mean


class VectorQuantizer(nn.Module):
    """The nearest entry of a learned codebook.

    With a ``decay`` the entries are moving averages of the features assigned to them,
    kept in the mutable collection ``codebook``; entries that are rarely used are reset
    to features of the batch. With ``decay=None`` the codebook is a parameter, trained
    by ``codebook_loss``.

    Source: van den Oord, Vinyals and Kavukcuoglu, "Neural Discrete Representation
    Learning", 2017, arXiv 1711.00937, and its appendix A.1; restarts: Dhariwal et al.,
    "Jukebox", 2020, arXiv 2005.00341; cosine: Yu et al., "Vector-quantized Image
    Modeling with Improved VQGAN", 2021, arXiv 2110.04627.
    """

    num_codes: int = 512  # M
    width: int = 32  # D of an entry
    decay: float | None = 0.99  # of the moving averages, per step
    restart_below: float = 0.03  # entries used less than this share of the mean restart
    distance: Distance = "euclidean"  # "cosine": entries and features have length 1

    def setup(self) -> None:
        """The projection of features and the codebook."""
        check_at_least("num_codes", self.num_codes, 2)
        check_at_least("width", self.width, 1)
        check_at_least("restart_below", self.restart_below, 0)
        check_choice("distance", self.distance, DISTANCES)
        self.project = nn.Dense(self.width)
        shape = (self.num_codes, self.width)
        init = nn.initializers.normal(1.0)
        if self.decay is None:
            self.codes = self.param("codes", init, shape, jnp.float32)
            return
        check_above("decay", self.decay, 0)
        check_below("decay", self.decay, 1)

        def initial_codes() -> jax.Array:
            return self._bound(init(self.make_rng("params"), shape, jnp.float32))

        self.average = self.variable("codebook", "codes", initial_codes)
        self.uses = self.variable("codebook", "uses", jnp.ones, shape[:1], jnp.float32)
        self.sums = self.variable("codebook", "sums", lambda: self.average.value)

    def __call__(self, features: jax.Array) -> Quantized:
        """Quantizes ``(B, H', W', F)``, or ``(B, T', F)`` of series.

        In training it also updates the codebook.
        """
        z = self.features(features)
        codes = self.entries()
        rows = z.reshape(-1, self.width)  # (B H' W', D)
        indices = nearest(rows, codes)
        chosen = codes[indices].reshape(z.shape)
        if self.decay is not None and self.is_mutable_collection("codebook"):
            if not self.is_initializing():
                self._update(rows, indices)
            chosen = jax.lax.stop_gradient(chosen)

        def distance(a: jax.Array, b: jax.Array) -> jax.Array:
            return ((a - b) ** 2).sum(axis=tuple(range(1, a.ndim)))

        fixed = jax.lax.stop_gradient
        return Quantized(
            mean=z + fixed(chosen - z),
            indices=indices.reshape(z.shape[:-1]),
            commitment=distance(z, fixed(chosen)),
            codebook_loss=distance(fixed(z), chosen),
            num_codes=jnp.asarray(self.num_codes, jnp.int32),
        )

    def features(self, features: jax.Array) -> jax.Array:
        """Projected features, compared with entries, ``(B, H', W', D)``."""
        z: jax.Array = self._bound(self.project(features))
        return z

    def entries(self) -> jax.Array:
        """The codebook, ``(M, D)``."""
        codes: jax.Array = self.codes if self.decay is None else self.average.value
        return self._bound(codes)

    def lookup(self, indices: jax.Array) -> jax.Array:
        """The entries ``(..., D)`` with the numbers ``(...)``."""
        return self.entries()[indices]

    @nn.nowrap
    def codebook_variables(self, codes: jax.Array) -> dict[str, dict[str, jax.Array]]:
        """The variables of a codebook with entries ``(M, D)``, by collection."""
        if self.decay is None:
            return {"params": {"codes": codes}}
        return {
            "codebook": {
                "codes": codes,
                "uses": jnp.ones(self.num_codes, codes.dtype),
                "sums": codes,
            }
        }

    def _bound(self, z: jax.Array) -> jax.Array:
        if self.distance == "euclidean":
            return z
        return z / jnp.sqrt((z**2).sum(-1, keepdims=True) + 1e-12)

    def _update(self, rows: jax.Array, indices: jax.Array) -> None:
        """One step of the moving averages, over the global batch."""
        assert self.decay is not None
        rows = jax.lax.stop_gradient(rows)
        chosen = jax.nn.one_hot(indices, self.num_codes, dtype=rows.dtype)  # (N, M)
        uses, sums = sum_over_devices((chosen.sum(0), chosen.T @ rows))
        uses = self.decay * self.uses.value + (1 - self.decay) * uses
        sums = self.decay * self.sums.value + (1 - self.decay) * sums
        everyone = gather_rows(rows)
        key = self.make_rng("codebook")
        picked = jax.random.randint(key, (self.num_codes,), 0, len(everyone), jnp.int32)
        mean_use = uses.mean()
        is_dead = uses < self.restart_below * mean_use
        uses = jnp.where(is_dead, mean_use, uses)
        fresh = everyone[picked] * mean_use
        sums = jnp.where(is_dead[:, None], fresh, sums)
        # Without restarts an entry that is not used stays where it is.
        is_void = (uses < LEAST_USE)[:, None]
        uses = jnp.maximum(uses, LEAST_USE)
        sums = jnp.where(is_void, self.average.value * LEAST_USE, sums)
        self.uses.value, self.sums.value = uses, sums
        self.average.value = self._bound(sums / uses[:, None])


class FiniteScalarQuantizer(nn.Module):
    """Rounds each dimension of a code to one of a few levels.

    The M entries are the Cartesian product of the levels. There is no codebook to
    learn, no commitment loss and no unused entry to reset.

    Source: Mentzer et al., "Finite Scalar Quantization: VQ-VAE Made Simple", 2023,
    arXiv 2309.15505, whose shift is by tan, close to the artanh here; for two levels it
    would leave one of them 6 % of normally distributed features.
    """

    levels: tuple[int, ...] = (8, 5, 5, 5)  # of each dimension; M = 1,000

    def setup(self) -> None:
        """The projection of features."""
        for level in self.levels:
            check_at_least("levels", level, 2)
        self.project = nn.Dense(len(self.levels))

    def __call__(self, features: jax.Array) -> Quantized:
        """Quantizes ``(B, H', W', F)``."""
        z = self.features(features)
        rounded = z + jax.lax.stop_gradient(jnp.round(z) - z)
        halves = np.array(self.levels) // 2
        digits = (jax.lax.stop_gradient(rounded) + _row(halves, z)).astype(jnp.int32)
        zeros = jnp.zeros(len(z), z.dtype)
        return Quantized(
            mean=rounded / _row(halves, z),
            indices=(digits * _row(self._places, digits)).sum(-1, dtype=jnp.int32),
            commitment=zeros,
            codebook_loss=zeros,
            num_codes=jnp.asarray(self.num_codes, jnp.int32),
        )

    def features(self, features: jax.Array) -> jax.Array:
        """Projected features, bounded so that rounding gives the number of levels.

        A shift maps a projected feature of 0 to the middle of a level where the number
        of levels is even. Of two levels each is the outermost one, whose middle only
        saturated features reach: they have no shift, and 0 lies between them.
        """
        z = self.project(features)
        L = np.array(self.levels, np.float32)
        # A little more than to the outermost levels, and less than to the next.
        half = np.minimum((L - 1) * (1 + 1e-3) / 2, (L - 1) / 2 + 0.25)
        offset = np.where(L % 2 == 0, 0.5, 0.0).astype(np.float32)
        shift = np.where(L > 2, np.arctanh(offset / half), 0.0).astype(np.float32)
        return jnp.tanh(z + _row(shift, z)) * _row(half, z) - _row(offset, z)

    def lookup(self, indices: jax.Array) -> jax.Array:
        """The entries ``(..., D)`` with the numbers ``(...)``."""
        levels = np.array(self.levels)
        numbers = jnp.asarray(indices)[..., None]  # NumPy's integers have 64 bits
        digits = numbers // _row(self._places, numbers) % _row(levels, numbers)
        halves = _row(levels // 2, digits)
        return narrow((digits - halves) / halves)

    @property
    def num_codes(self) -> int:
        """M."""
        return math.prod(self.levels)

    @property
    def _places(self) -> np.ndarray:
        """The place value of each digit."""
        return np.cumprod((1, *self.levels[:-1]))


Quantizer = Literal["vq", "fsq"]
QUANTIZERS: dict[Quantizer, type[nn.Module]] = {
    "vq": VectorQuantizer,
    "fsq": FiniteScalarQuantizer,
}


def nearest(rows: jax.Array, codes: jax.Array) -> jax.Array:
    """The index of the nearest code of each row, ``(N, D)`` and ``(M, D)`` -> ``(N,)``.

    Ties are broken in favour of the lowest index. The squares are expanded about the
    mean of the codes: a chosen code's squared distance exceeds the smallest by at most
    about 1e-6 of the squared distances of row and codes from that mean (in float32).
    """
    middle = codes.mean(0, keepdims=True)
    rows, codes = rows - middle, codes - middle
    product = jnp.matmul(rows, codes.T, precision="highest")  # (N, M)
    squares = (codes**2).sum(-1)  # the rows' squares do not change the order
    return jnp.argmin(squares[None] - 2 * product, axis=-1).astype(jnp.int32)


def k_means(
    rows: jax.Array, num_codes: int, *, key: jax.Array, rounds: int = 10
) -> jax.Array:
    """Centres ``(M, D)`` of rows ``(N, D)`` by Lloyd's algorithm.

    Initialized with random rows; a centre without any row assigned stays where it is.
    """
    if len(rows) < num_codes:
        picked = jax.random.randint(key, (num_codes,), 0, len(rows), jnp.int32)
        centres = rows[picked]
    else:
        centres = jax.random.choice(key, rows, (num_codes,), replace=False)

    def improve(_: int, centres: jax.Array) -> jax.Array:
        chosen = jax.nn.one_hot(nearest(rows, centres), num_codes, dtype=rows.dtype)
        count = chosen.sum(0)[:, None]
        means = (chosen.T @ rows) / jnp.maximum(count, 1.0)
        return jnp.where(count > 0, means, centres)

    found: jax.Array = jax.lax.fori_loop(0, rounds, improve, centres)
    return found


def _row(values: np.ndarray, like: jax.Array) -> jax.Array:
    """Values ``(D,)`` with the axes of ``(..., D)``."""
    return jnp.asarray(values, like.dtype).reshape((1,) * (like.ndim - 1) + (-1,))
