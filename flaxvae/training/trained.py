"""A trained model: encode, decode, sample."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.capabilities import Decodes, Encodes, HasPrior, ModelTraits
from flaxvae.checks import (
    InputError,
    NonFiniteError,
    as_integer,
    check_at_least,
    check_boolean,
    check_density,
    check_numbers,
    describe_bad_variables,
    list_names,
    show,
)
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.data.rows import in_memory
from flaxvae.data.tables import is_table, read_like
from flaxvae.distributions.distribution import (
    Distribution,
    batch_shape,
    draw_examples,
)
from flaxvae.distributions.levels import Codes, LevelPosterior, LevelPrior
from flaxvae.dtypes import at_least_float32, narrow, stored_type
from flaxvae.models.bind import bind, bind_example
from flaxvae.objectives.objective import Objective
from flaxvae.training.evaluate import draw_inputs
from flaxvae.training.inputs import as_array, check_examples, conditions_of
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.shared import share_program
from flaxvae.training.state import count_parameters
from flaxvae.training.storage.stored import Line
from flaxvae.types import PyTree

CHUNK = 1024  # rows computed at once

A = TypeVar("A", bound=np.ndarray | jax.Array | Codes)
R = TypeVar("R")
Compute = Callable[[VariableDict, Batch[jax.Array]], R]
"""``(variables, batch) -> result``, a tree of arrays."""
Posterior = Distribution | LevelPosterior
Prior = Distribution | LevelPrior


class Sampler(Protocol):
    """A distribution of codes, as `Trained.sample` takes it in place of the prior."""

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array | Codes:
        """Draws codes ``(*shape, ...)``."""


@dataclass(frozen=True, eq=False, repr=False)
class Trained:
    """A model with its parameters: encode, decode, reconstruct, sample.

    Attributes:
      model: the unbound module.
      variables: parameters and mutable collections, as ``model.apply`` takes them.
      data_shape: shape of one example, ``(H, W, C)``, ``(T, F)`` or ``(F,)``.
      preprocessing: from examples as they were stored to what the model saw.
      history: one dict per epoch: ``epoch``, ``train`` and ``validation`` metrics.
      timing: of its training: ``seconds_per_epoch`` (median, validation included),
        ``seconds_per_step``, ``images_per_second``, ``compile_seconds`` and
        ``peak_memory_bytes``; after loading empty, unless `flaxvae.save` wrote it.
      epochs: how long it was trained; the history may have lost some of them.
      best_epoch: the epoch that early stopping chose, if it was on.
      failure: of a member of a sweep, what became infinite or NaN and when, or None.
      objective: what it was trained on; None where that cannot be known, as after
        loading a run with an objective of the user's own.
      seed: of the run's root key.
      workdir: the run's folder, or None.
      template: its data set without examples, like which new data are read; None where
        that is unknown.
    """

    model: nn.Module
    variables: dict[str, optax.Params]
    data_shape: tuple[int, ...]
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    history: list[Line] = field(default_factory=list)
    timing: dict[str, float] = field(default_factory=dict)
    epochs: int = 0
    best_epoch: int | None = None
    failure: str | None = None
    objective: Objective | None = None
    seed: int = 0
    workdir: Path | None = None
    template: Dataset | None = None

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.data_shape))
        where = "" if self.workdir is None else f", {self.workdir}"
        return (
            f"{type(self).__name__}({_describe_parts(self.model)}, {self._data_name()}"
            f"{shape}, {self.epochs} epochs, {self.parameters:,} parameters"
            f"{where})"
        )

    def _data_name(self) -> str:
        return "examples of "

    def __getstate__(self) -> dict[str, object]:
        """The fields; compiled functions are made again where they are needed."""
        fields = dataclasses.fields(self)
        return {each.name: getattr(self, each.name) for each in fields}

    def with_variables(self, variables: dict[str, optax.Params]) -> Self:
        """The model with other variables of the same shapes, and its programs.

        Nothing is compiled again to encode or decode.
        """
        other = dataclasses.replace(self, variables=variables)
        # Also those of a module that cannot be hashed.
        shared = {"_encode": self._encode, "_decode": self._decode}
        vars(other).update(shared, _takes=self._takes, _code=self._code)
        return other

    def check_finite(self) -> None:
        """Raises `NonFiniteError` for a failed run, or parameters that are not finite.

        So does whatever computes with the model; ``variables`` and ``history`` can be
        looked at.
        """
        if self._problem is not None:
            raise NonFiniteError(self._problem)

    @functools.cached_property
    def _problem(self) -> str | None:
        where = "" if self.workdir is None else f" of {self.workdir}"
        if self.failure is not None:
            return f"the training{where} has failed: {self.failure}"
        bad = describe_bad_variables(self.variables)
        return bad and f"the model{where} is not finite: {bad}"

    @property
    def key(self) -> jax.Array:
        """The run's root key, which `stream_key` folds into."""
        return jax.random.key(self.seed)

    @property
    def parameters(self) -> int:
        """Number of parameters."""
        return count_parameters(self.variables["params"])

    @functools.cached_property
    def _code(self) -> jax.Array | Codes:
        """The code of one example, without its numbers."""
        has_codes = self.is_conditional or isinstance(self.model, Encodes)
        self._check_has("encode", has_codes)
        x = jax.ShapeDtypeStruct((1, *self.data_shape), jnp.float32)
        code: jax.Array | Codes
        code = _compile_code(self.model).trace(self.variables, x).out_info
        return code

    @property
    def has_levels(self) -> bool:
        """Whether codes are `flaxvae.distributions.levels.Codes`, not one array."""
        return isinstance(self._code, Codes)

    @property
    def level_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shape of an example's code in each level, top level first."""
        code = self._code
        levels = code.levels if isinstance(code, Codes) else (code,)
        return tuple(tuple(level.shape[1:]) for level in levels)

    @property
    def code_shape(self) -> tuple[int, ...]:
        """Shape of an example's code: ``(D,)``, or ``(H', W', D)`` of a grid.

        Raises:
          InputError: codes have several levels, see `level_shapes`.
        """
        if self.has_levels:
            raise InputError(
                "code_shape must be of a model whose code is one array, got "
                f"{type(self.model).__name__}, whose level_shapes are "
                f"{list_names(self.level_shapes)}"
            )
        return self.level_shapes[0]

    @property
    def latent_dim(self) -> int:
        """D, the number of latent dimensions of all levels; of a grid its channels."""
        return sum(shape[-1] for shape in self.level_shapes)

    @property
    def is_conditional(self) -> bool:
        """Whether the model takes a class or a vector as condition of each example."""
        return ModelTraits.of(self.model).condition is not None

    def encode(
        self,
        x: np.ndarray | jax.Array,
        condition: object = None,
        *,
        key: jax.Array | None = None,
    ) -> Posterior:
        """q(z|x) of each example; its ``mean`` ``(N, D)`` is the code to look at.

        Of a model with several levels it is a `LevelPosterior`, whose ``mean`` are
        `Codes`: one array ``(N, ...)`` per level, top level first.

        Without a key the code is a function of the example: where a model is trained on
        dynamically binarized or dequantized images, the network sees their grey levels,
        or the mean of the noise. With a key these are drawn as an evaluation draws them
        under the same key, so that codes are of the very inputs whose ELBO it reports.

        Args:
          x: examples as its data set stores them: images ``(N, H, W, C)`` as integers
            or as floats in [0, 1], series ``(N, T, F)`` and rows ``(N, F)`` in their
            own units, or factors to be drawn. Images of one channel and series of one
            feature may lack the last axis. A single example ``(H, W, C)``, ``(T, F)``
            or ``(F,)`` gives a single code, without the axis N.
          condition: of a conditional model: a class ``(N,)`` or a vector ``(N, C)``
            for each example, or one class for all. A class is its number from 0 in the
            data set's ``class_names``, or its name there as a text.
          key: of dynamic binarization and dequantization; without these it changes
            nothing. See `flaxvae.training.evaluate.draw_inputs`.

        No examples give no codes.

        Raises:
          InputError: examples of another shape or with other values than its data set
            has, no condition for a model that takes one, or a class that it does not
            have.
          NonFiniteError: parameters, or a q(z|x), that are infinite or NaN.
        """
        self._check_has("encode", isinstance(self.model, Encodes))
        self.check_finite()
        x = as_array(self._as_rows(x))
        ndim = len(self.data_shape)
        has_one_less = ndim > 1 and x.ndim <= ndim
        if has_one_less and (*x.shape[1 - ndim :], 1) == self.data_shape:
            x = x[..., None]
        is_one = not self._takes(x.shape[1:], x.dtype) and self._takes(x.shape, x.dtype)
        if is_one:
            x = x[None]
            condition = None if condition is None else np.asarray(condition)[None]
        self.check(x)
        batch = self._as_batch(x, condition)
        encode = functools.partial(self._encode, self.variables)
        if key is not None and len(x) and self.preprocessing.has_draws(x.dtype):
            q = self._draw_and_apply(self._encode_seen, batch, key)
        else:
            q = _in_chunks(encode, batch, self.preprocessing.stored)
        check_density("q(z|x)", q)
        if not is_one:
            return q
        if isinstance(q, LevelPosterior):
            return dataclasses.replace(q, is_one=True)
        has_rows = _find_rows(encode, batch.with_x(self.preprocessing.stored(x)))
        one: Distribution
        one = jax.tree.map(lambda rows, leaf: leaf[0] if rows else leaf, has_rows, q)
        return one

    def check(self, x: np.ndarray | jax.Array) -> None:
        """Raises `InputError` for examples unlike those of the model's data set.

        Args:
          x: an array of examples as they are stored, ``(N, ...)``: their shape and
            their values are checked.
        """
        if not (x.ndim and self._takes(x.shape[1:], x.dtype)):
            raise InputError(
                f"x must have the shape (N, {str(self.data_shape)[1:]}, got {x.shape}"
            )
        is_image = len(self.data_shape) == 3
        check_examples(x, self.preprocessing, is_image=is_image)

    def _check_has(self, name: str, has: bool) -> None:
        if not has:
            raise InputError(
                f"the model must have a method {name}, and {type(self.model).__name__} "
                "has none"
            )

    def _as_rows(self, x: object) -> object:
        """A data frame of the run's columns, in any order, as rows of numbers."""
        if self.preprocessing.schema is not None and is_table(x):
            return read_like(x, self.preprocessing.schema)[0]
        moments = self.preprocessing.standardization
        if moments is not None and moments.on_host is not None:
            return np.asarray(x, np.float64)
        return x

    @functools.cached_property
    def _takes(self) -> Callable[[tuple[int, ...], np.dtype], bool]:
        """Whether the model takes stored examples of a shape and a type."""

        @functools.cache  # traced once, not for every batch
        def takes(shape: tuple[int, ...], dtype: np.dtype) -> bool:
            stored = jax.ShapeDtypeStruct((1, *shape), stored_type(dtype))
            try:
                x = jax.eval_shape(self.preprocessing.prepare, stored)
            except (TypeError, ValueError):  # a row of another table
                return False
            return bool(x.shape[1:] == self.data_shape)

        return takes

    def decode(
        self,
        z: np.ndarray | jax.Array | Codes | Sequence[np.ndarray | jax.Array],
        condition: object = None,
    ) -> Distribution:
        """p(x|z) of each code ``(N, D)``; its ``mean`` is the image to look at.

        Of a model with several levels ``z`` is `Codes`, or one array ``(N, ...)`` per
        level, top level first. ``condition`` is as in `encode`.

        Raises:
          InputError: codes of another shape or that are not finite, or a condition that
            the model does not have.
          NonFiniteError: parameters, or a p(x|z), that are infinite or NaN.
        """
        self._check_has("decode", isinstance(self.model, Decodes))
        self.check_finite()
        given = self._as_levels(z, "z") if self.has_levels else [z]
        names = [f"level {i + 1} of z" for i in range(len(given))]
        names = names if self.has_levels else ["z"]
        levels = [
            _check_code(level, shape, name)
            for level, shape, name in zip(given, self.level_shapes, names, strict=True)
        ]
        counts = {len(level) for level in levels}
        if len(counts) > 1:
            raise InputError(
                "the levels of z must have one number of codes, got "
                f"{list_names(map(len, levels))}"
            )
        arrays = cast(tuple[jax.Array, ...], tuple(levels))
        codes = Codes(arrays) if self.has_levels else arrays[0]
        decode = functools.partial(self._decode, self.variables)
        p = _in_chunks(decode, self._as_batch(codes, condition))
        check_density("p(x|z)", p)
        return p

    def _as_levels(self, z: object, name: str) -> Sequence[object]:
        """The arrays of codes of several levels.

        Raises:
          InputError: not one array per level.
        """
        L = len(self.level_shapes)
        levels = z.levels if isinstance(z, Codes) else z
        if not isinstance(levels, tuple | list):
            raise InputError(
                f"{name} must be Codes or a tuple of {L} arrays, top level first, got "
                f"{show(z)}"
            )
        if len(levels) != L:
            raise InputError(f"{name} must have {L} levels, got {len(levels)}")
        return levels

    def compute(
        self,
        method: Callable[..., R],
        x: np.ndarray | jax.Array,
        *,
        check: bool = True,
        key: jax.Array | None = None,
    ) -> R:
        """``method(model, x)`` of examples as they are stored, in chunks.

        Such as ``trained.compute(lambda model, x: model(x), images)`` of a classifier.
        The same function is compiled once for equal models, as long as the variables
        around it that it uses hold the same numbers, arrays and objects, a new lambda
        in each call. Without ``check`` values may lie out of the data's range, as of
        samples. ``key`` is as in `encode`.

        Raises:
          InputError: as `encode`.
          NonFiniteError: parameters that are infinite or NaN.
        """
        self.check_finite()
        x = as_array(x)
        if check:
            self.check(x)

        if key is not None and len(x) and self.preprocessing.has_draws(x.dtype):
            on_seen = _compile_method(self.model, None, method)
            return self._draw_and_apply(on_seen, Batch(x), key)
        compute = _compile_method(self.model, self.preprocessing, method)
        apply = functools.partial(compute, self.variables)
        return _in_chunks(apply, Batch(x), self.preprocessing.stored)

    def reconstruct(
        self, x: np.ndarray | jax.Array, condition: object = None
    ) -> jax.Array:
        """The mean image ``(N, H, W, C)`` decoded from the mean code of each ``x``.

        In the model's units: of series and rows see `Preprocessing.inverse`. A single
        example gives a single image.
        """
        codes = mean_of(self.encode(x, condition))
        is_one = codes.ndim == len(self.level_shapes[0])
        if is_one:
            codes = jax.tree.map(lambda a: a[None], codes)
            condition = None if condition is None else np.asarray(condition)[None]
        means: jax.Array = self.decode(codes, condition).mean
        check_numbers("the mean of p(x|z)", means)
        return means[0] if is_one else means

    def sample(
        self,
        num: int,
        *,
        key: jax.Array | None = None,
        with_noise: bool = False,
        sampler: Sampler | None = None,
        condition: object = None,
        temperature: float = 1.0,
        given: Sequence[np.ndarray | jax.Array] = (),
    ) -> jax.Array:
        """Examples ``(num, *data_shape)`` of codes drawn from the prior.

        Args:
          num: how many.
          key: a JAX PRNG key; None: the run's own for figures.
          with_noise: draws from p(x|z) instead of returning its means, which are what
            pictures show.
          sampler: what has ``sample(key, shape)`` in place of the prior, such as
            `flaxvae.latent.fit_mixture` returns.
          condition: as in `encode`.
          temperature: of a model with several levels, the factor >= 0 of the standard
            deviations of its normal levels; 0 gives means.
          given: of such a model, the codes of the first levels, top level first, which
            are kept: ``(num, ...)`` each, or ``(...)`` for all examples.

        Raises:
          InputError: the model has no prior and there is no ``sampler``; a temperature
            or levels for a model without levels; levels of another shape, or too many.
          NonFiniteError: parameters, codes or samples that are infinite or NaN.
        """
        self.check_finite()
        num = as_integer("num", num, 0)
        check_boolean("with_noise", with_noise)
        self._check_level_options(temperature, given, sampler)
        key = stream_key(self.key, Stream.FIGURES) if key is None else key
        key_z, key_x = jax.random.split(key) if with_noise else (key, key)
        z: jax.Array | Codes
        if not sampler and self.has_levels and isinstance(self.prior, LevelPrior):
            z = self.draw_levels(num, key=key_z, given=given, temperature=temperature)
        else:
            source = sampler or self._prior(condition, num)
            if source is None:
                raise InputError(
                    "sampler must be stated for a model without a prior, such as the "
                    "one that flaxvae.latent.fit_mixture returns"
                )
            # A prior that depends on the condition is a batch of one for each.
            own = cast(Distribution, source)
            shape = () if not sampler and batch_shape(own) else (num,)
            z = source.sample(key_z, shape)
            check_numbers("a drawn code", z)
        p = self.decode(z, condition)
        x: jax.Array = draw_examples(p, key_x) if with_noise else p.mean
        check_numbers("a sample", x)
        return x

    def _check_level_options(
        self, temperature: float, given: Sequence[object], sampler: Sampler | None
    ) -> None:
        check_at_least("temperature", temperature, 0)
        options = {"temperature": temperature != 1.0, "given": bool(len(given))}
        for name in (name for name, is_set in options.items() if is_set):
            if not self.has_levels:
                raise InputError(
                    f"{name} must be left out for a model without levels of latent "
                    f"variables, got {type(self.model).__name__}"
                )
            if sampler is not None:
                raise InputError(f"{name} must be left out where sampler is stated")

    def draw_levels(
        self,
        num: int,
        *,
        key: jax.Array,
        given: Sequence[np.ndarray | jax.Array] = (),
        temperature: float = 1.0,
    ) -> Codes:
        """Codes of all levels ``(num, ...)``, drawn from the prior.

        The arguments are those of `sample`. One program is compiled for draws without
        given levels, and one for any number of these.

        Raises:
          InputError: a model without levels, or levels as `sample` refuses them.
          NonFiniteError: parameters or codes that are infinite or NaN.
        """
        self.check_finite()
        prior = self.prior
        if not isinstance(prior, LevelPrior):
            raise InputError(
                "the model must have levels of latent variables, got "
                f"{type(self.model).__name__}"
            )
        shapes = self.level_shapes
        if len(given) > len(shapes):
            raise InputError(
                f"given must have {len(shapes)} levels at most, got {len(given)}"
            )
        codes: list[np.ndarray] = []
        is_wide = _has_wide(self.variables)
        for number, (level, shape) in enumerate(zip(given, shapes, strict=False), 1):
            name = f"level {number} of given"
            array = as_array(level, name)
            if array.shape == shape:
                array = np.broadcast_to(np.asarray(array), (num, *shape))
            code = _check_code(array, shape, name, num)
            code = code.astype(at_least_float32(code.dtype))
            codes.append(np.asarray(code if is_wide else narrow(code)))
        kept = len(codes)
        if codes:  # zeros in place of draws: one program for any number of levels
            codes += [np.zeros((num, *shape), np.float32) for shape in shapes[kept:]]

        parts, count = [], min(num, CHUNK)
        for first in range(0, num, CHUNK):
            own = jax.random.fold_in(key, first) if first else key
            rows = np.minimum(np.arange(first, first + count), num - 1)
            part = cast(list[jax.Array], [level[rows] for level in codes])
            options = jnp.int32(kept), jnp.float32(temperature), count
            parts.append(_draw_prior(prior, own, part, *options))
        if not parts:
            return Codes(tuple(jnp.zeros((0, *shape)) for shape in shapes))
        joined: Codes = jax.tree.map(lambda *a: jnp.concatenate(a)[:num], *parts)
        check_numbers("a drawn code", joined)
        return joined

    @functools.cached_property
    def prior(self) -> Prior | None:
        """p(z), or None where the model has none or it depends on a condition."""
        return None if self.is_conditional else self._prior(None, 1)

    def _prior(self, condition: object, num: int) -> Prior | None:
        def prior(vae: nn.Module, batch: Batch[jax.Array]) -> object:
            seen, _ = bind(vae, batch)
            return seen.prior() if isinstance(seen, HasPrior) else None

        batch = self._as_batch(np.zeros(num, np.float32), condition)
        found = self.model.apply(self.variables, batch, method=prior)
        return cast(Prior | None, found)

    def _class_names(self) -> Sequence[str] | None:
        """Names of the classes, where they are known."""
        return None

    def _as_batch(self, x: A, condition: object) -> Batch[A]:
        """Examples or codes with the condition of each, as far as the model takes one.

        Raises:
          InputError: conditions that are missing, or that the model does not have.
        """
        conditions = conditions_of(self.model, condition, len(x), self._class_names())
        return Batch(x, condition=cast(A | None, conditions))

    def _draw_and_apply(
        self,
        compute: Compute[R],
        batch: Batch[A],
        key: jax.Array,
    ) -> R:
        """``compute(variables, batch)`` of the inputs that a key draws."""
        apply = functools.partial(compute, self.variables)
        examples = cast(Batch[np.ndarray], batch)
        split = Split(examples.x, condition=examples.condition)
        size, parts = 0, []
        for seen in draw_inputs(self.preprocessing, split, key):
            size = size or len(seen.x)
            # The last batch is filled: one shape, one compilation.
            parts.append(apply(seen.filled(size)))
        return _join(_find_rows(apply, seen), parts, len(batch.x))

    @functools.cached_property
    def _encode(self) -> Compute[Posterior]:
        return _compile_encode(self.model, self.preprocessing)

    @functools.cached_property
    def _encode_seen(self) -> Compute[Posterior]:
        return _compile_encode(self.model, None)

    @functools.cached_property
    def _decode(self) -> Compute[Distribution]:
        return _compile_decode(self.model)


@share_program
def _compile_encode(
    model: nn.Module, preprocessing: Preprocessing | None
) -> Compute[Posterior]:
    """Compiles ``encode(variables, batch) -> q(z|x)``.

    Without a preprocessing the batch holds the network's inputs.
    """

    def method(model: nn.Module, batch: Batch[jax.Array]) -> Posterior:
        vae, x = bind(model, batch)
        return vae.encode(x)

    def encode(variables: VariableDict, batch: Batch[jax.Array]) -> Posterior:
        if preprocessing is not None:
            batch = batch.with_x(preprocessing.prepare(batch.x))
        return cast(Posterior, model.apply(variables, batch, method=method))

    return encode


@share_program
def _compile_decode(model: nn.Module) -> Compute[Distribution]:
    """Compiles ``decode(variables, codes) -> p(x|z)``."""

    def method(model: nn.Module, codes: Batch[jax.Array]) -> Distribution:
        vae, z = bind(model, codes)
        return vae.decode(z)

    def decode(variables: VariableDict, codes: Batch[jax.Array]) -> Distribution:
        if not _has_wide(variables):
            codes = codes.with_x(jax.tree.map(narrow, codes.x))
        return cast(Distribution, model.apply(variables, codes, method=method))

    return decode


@share_program
def _compile_code(
    model: nn.Module,
) -> Callable[[VariableDict, jax.Array], jax.Array | Codes]:
    """Compiles ``code(variables, x)``, the mean code of one example ``(1, ...)``."""

    def method(vae: nn.Module, x: jax.Array) -> jax.Array | Codes:
        mean: jax.Array | Codes = bind_example(vae, 1).encode(x).mean
        return mean

    def code(variables: VariableDict, x: jax.Array) -> jax.Array | Codes:
        return cast(jax.Array | Codes, model.apply(variables, x, method=method))

    return code


@share_program
def _compile_method(
    model: nn.Module,
    preprocessing: Preprocessing | None,
    method: Callable[..., R],
) -> Compute[R]:
    """Compiles ``compute(variables, batch)``, see `Trained.compute`.

    Without a preprocessing the batch holds the network's inputs.
    """

    def compute(variables: VariableDict, batch: Batch[jax.Array]) -> R:
        x = batch.x if preprocessing is None else preprocessing.prepare(batch.x)
        return cast(R, model.apply(variables, x, method=method))

    return compute


def mean_of(q: Posterior) -> jax.Array | Codes:
    """``q.mean`` of any model's q(z|x); of several levels as one compiled program."""
    return _mean_of_levels(q) if isinstance(q, LevelPosterior) else q.mean


@jax.jit
def _mean_of_levels(q: LevelPosterior) -> Codes:
    return q.mean


def _describe_parts(model: nn.Module) -> str:
    """The class of a model and those of its parts."""
    parts = [vars(model).get(each.name) for each in dataclasses.fields(model)]
    names = [type(p).__name__ for p in parts if isinstance(p, nn.Module)]
    return f"{type(model).__name__}({', '.join(names)})"


@functools.partial(jax.jit, static_argnames=("count",))
def _draw_prior(
    prior: LevelPrior,
    key: jax.Array,
    given: Sequence[jax.Array],
    kept: jax.Array,
    temperature: jax.Array,
    count: int,
) -> Codes:
    return prior.sample(
        key,
        (count,),
        given=given,
        kept=kept if given else None,
        temperature=temperature,
    )


def _check_code(
    z: object, shape: tuple[int, ...], name: str, num: int | None = None
) -> np.ndarray | jax.Array:
    """Codes ``(N, *shape)`` as an array.

    Raises:
      InputError: another shape, or what is not a finite real number.
    """
    array = as_array(z, name)
    is_real = array.dtype.kind in "iu" or jnp.issubdtype(array.dtype, jnp.floating)
    if not is_real:
        raise InputError(f"{name} must hold real numbers, got {array.dtype}")
    if not array.ndim or array.shape[1:] != shape or num not in (None, len(array)):
        rows = "N" if num is None else num
        raise InputError(
            f"{name} must have the shape ({rows}, {str(shape)[1:-1].rstrip(',')}), got "
            f"{array.shape}"
        )
    is_traced = isinstance(array, jax.core.Tracer)
    if not is_traced and not np.isfinite(np.asarray(array)).all():
        raise InputError(f"{name} must hold finite numbers, got NaN or infinity")
    return array


def _has_wide(variables: VariableDict) -> bool:
    """Whether parameters of the user's own are float64."""
    return any(leaf.dtype == np.float64 for leaf in jax.tree.leaves(variables))


def _in_chunks(
    compute: Callable[[Batch[jax.Array]], R],
    batch: Batch[A],
    stored: Callable[[A], A] = lambda x: x,
) -> R:
    """Applies ``compute`` to at most CHUNK rows at a time, and joins the results.

    A compiled ``compute`` takes arrays of NumPy as they are; ``jnp.asarray`` would
    compile a program for each shape.
    ``stored`` prepares examples for the device; see `Preprocessing.stored`.
    """
    N = len(batch.x)
    if not N:
        # A network may not take an empty batch: one row that is dropped again.
        batch = batch.with_x(stored(batch.x))
        one = jax.tree.map(lambda a: np.zeros((1, *a.shape[1:]), a.dtype), batch)
        has_rows = _find_rows(compute, in_memory(batch))
        none: R = jax.tree.map(
            lambda rows, leaf: leaf[:0] if rows else leaf, has_rows, compute(one)
        )
        return none
    if N <= CHUNK:
        whole = in_memory(batch.with_x(stored(batch.x)))
        return compute(cast(Batch[jax.Array], whole))
    parts = []
    for start in range(0, N, CHUNK):
        # The last chunk is filled with its last row: one shape, one compilation.
        rows = batch[np.minimum(np.arange(start, start + CHUNK), N - 1)]
        part = cast(Batch[jax.Array], in_memory(rows.with_x(stored(rows.x))))
        parts.append(compute(part))
    return _join(_find_rows(compute, part), parts, N)


def _join(has_rows: PyTree, parts: Sequence[R], count: int) -> R:
    """One result of ``count`` rows; what all rows share exists once."""

    def join(has_rows: bool, *leaves: jax.Array) -> jax.Array:
        return jnp.concatenate(leaves)[:count] if has_rows else leaves[0]

    joined: R = jax.tree.map(join, has_rows, *parts)
    return joined


def _find_rows(compute: Callable[[Batch[jax.Array]], R], batch: Batch[A]) -> PyTree:
    """Which arrays of a result have an axis of rows: not, say, a flow's kernels."""

    def shapes(count: int) -> PyTree:
        rows = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(
                (count, *leaf.shape[1:]), jax.dtypes.canonicalize_dtype(leaf.dtype)
            ),
            batch,
        )
        return jax.eval_shape(compute, rows)

    one, two = shapes(1), shapes(2)
    return jax.tree.map(lambda a, b: a.shape != b.shape, one, two)
