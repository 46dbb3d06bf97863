"""Compiled programs that all estimators of a process share.

A program is compiled for a `Network` or a `Recipe`, never for a table: rows are filled
up to a multiple of `COLUMNS` columns that are missing everywhere, which p(x|z) leaves
out; training reads batches from the host, so that it does not depend on the number of
rows; predictions are computed in batches of two sizes. Hence a grid search compiles
once for each architecture, not once for each fit.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.typing import VariableDict

from flaxvae.batch import Batch
from flaxvae.checks import NonFiniteError, check_above
from flaxvae.compiler import light_options
from flaxvae.data import Dataset, Preprocessing, Split
from flaxvae.models import SemiSupervisedVAE, VAEConfig, build_classifier
from flaxvae.models.data_spec import DataSpec
from flaxvae.objectives import ELBO, M2, Objective
from flaxvae.training import Optimization, Training
from flaxvae.training.drive import Advance, as_steps, describe_bad_step
from flaxvae.training.epochs import Layout
from flaxvae.types import Block

COLUMNS = 16  # rows have a multiple of so many columns
BATCH = 128  # examples in a training step
LEAST_ROUND = 25  # steps from one validation to the next, if there are any
ROUNDS = 20  # of a training, at most
PATIENCE = 5  # rounds without a better validation value
VALIDATION = 1000  # examples that a validation is compiled for
CHUNK = 500  # steps of one call, at most
CHUNK_BYTES = 2**25  # of the batches of one call
SIZES = (256, 4096)  # examples computed at once

R = TypeVar("R")
Classifies = Callable[[jax.Array], jax.Array]
"""A bound model with a classifier: from examples to logits."""


@dataclass(frozen=True)
class Network:
    """A model by its settings, from which it can be built again.

    Attributes:
      shape: of an example as the model sees it.
      config: of the VAE.
      num_classes: Y of a model with a classifier, see `SemiSupervisedVAE`; None: a VAE.
    """

    shape: tuple[int, ...]
    config: VAEConfig
    num_classes: int | None = None

    @property
    def masks(self) -> bool:
        """Whether numbers that are NaN count as missing."""
        return self.config.likelihood == "mixed"


@functools.lru_cache(maxsize=64)
def build_model(network: Network) -> nn.Module:
    """The unbound model."""
    real: Block = ("real",)
    spec = DataSpec(
        network.shape,
        num_classes=network.num_classes,
        columns=(real,) * network.shape[0] if network.masks else None,
        is_mixed=network.masks,
    )
    vae = network.config.build(spec)
    if network.num_classes is None:
        return vae
    hidden = network.config.hidden or ()
    classifier = build_classifier("mlp", network.num_classes, hidden=hidden)
    return SemiSupervisedVAE(vae, classifier)


@dataclass(frozen=True)
class Recipe:
    """What a compiled training depends on.

    Attributes:
      network: what is trained.
      steps_per_round: train steps from one validation to the next.
      is_validated: whether there are validation examples, which end a training early.
      num_labelled: L, of the labelled examples that M2 is given.
    """

    network: Network
    steps_per_round: int = LEAST_ROUND
    is_validated: bool = False
    num_labelled: int = 0

    @property
    def num_validation(self) -> int:
        """Validation examples; examples that only fill the array have weight 0."""
        return VALIDATION * self.is_validated

    @property
    def chunk(self) -> int:
        """Steps whose batches one call takes."""
        step_bytes = 4 * BATCH * math.prod(self.network.shape)
        return max(1, min(CHUNK, CHUNK_BYTES // step_bytes))


def choose_round(steps: int) -> int:
    """Steps of a round such that a training of so many ``steps`` has `ROUNDS` at most.

    One of few numbers, so that trainings of about the same length share a program.
    """
    doublings = math.ceil(math.log2(max(1.0, steps / (ROUNDS * LEAST_ROUND))))
    return int(LEAST_ROUND * 2**doublings)


class _Program(NamedTuple):
    training: Training
    advance: Advance


@functools.lru_cache(maxsize=32)
def _compile_training(recipe: Recipe) -> _Program:
    """The training of a data set of zeros, to be run on other batches."""
    network = recipe.network
    shape = network.shape
    zero = np.zeros(shape, np.float32)  # the only one in memory
    train, validation, test = (
        Split(np.broadcast_to(zero, (count, *shape)))
        for count in (recipe.steps_per_round * BATCH, recipe.num_validation, 0)
    )
    seen = Preprocessing(masked=network.masks)
    data = Dataset("rows", train, validation, test, preprocessing=seen)
    objective: Objective = ELBO()
    if network.num_classes is not None:
        L = recipe.num_labelled
        x = jnp.zeros((L, *shape), jnp.float32)
        objective = M2(x=x, labels=jnp.zeros(L, jnp.int32))
    patience = PATIENCE if recipe.is_validated else None
    training = Training(
        build_model(network),
        data,
        objective,
        Optimization(epochs=1, batch_size=BATCH, early_stopping=patience),
        optax.inject_hyperparams(_decaying_adam)(learning_rate=1e-3, total_steps=1.0),
    )
    layout = Layout(chunk=recipe.chunk)  # a call ends after any step
    advance = jax.jit(
        functools.partial(training.epochs, layout=layout),
        compiler_options=light_options(),
    )
    return _Program(training, advance)


def _decaying_adam(
    learning_rate: jax.Array, total_steps: jax.Array
) -> optax.GradientTransformation:
    """Adam whose rate falls to 0 along a cosine, at a step that may be traced."""

    def factor(step: jax.Array) -> jax.Array:
        return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(step / total_steps, 1.0)))

    return optax.chain(optax.adam(learning_rate), optax.scale_by_schedule(factor))


class Fitted(NamedTuple):
    """What a training has found.

    Attributes:
      variables: of the model, NumPy arrays.
      elbo: the ELBO per example in each round, of the validation examples if there are
        any, otherwise of those trained on; in nats of what the model sees.
      steps: train steps done.
    """

    variables: VariableDict
    elbo: np.ndarray
    steps: int


def train(
    recipe: Recipe,
    objective: Objective,
    draw: Callable[[np.ndarray], np.ndarray],
    num_examples: int,
    *,
    steps: int,
    learning_rate: float,
    seed: int,
    validation: np.ndarray | None = None,
    begin: Callable[[VariableDict], VariableDict] = lambda params: params,
) -> Fitted:
    """Trains a model on examples that the host draws, batch by batch.

    Batches are cut from one permutation of the examples after the other, so that each
    counts alike and no batch is short.

    Args:
      recipe: the model and its training.
      objective: that of the recipe with its own weights and labelled examples.
      draw: from numbers of examples ``(n,)`` to these examples ``(n, *shape)``.
      num_examples: N.
      steps: train steps in all.
      learning_rate: of Adam, at its highest; it falls to 0 along a cosine.
      seed: of all randomness.
      validation: examples ``(V, *shape)``, V at most `VALIDATION`, if the recipe is
        validated.
      begin: changes the initial parameters.

    Raises:
      InputError: a learning rate out of range.
      NonFiniteError: a term became infinite or NaN.
    """
    check_above("learning_rate", learning_rate, 0)
    training, advance = _compile_training(recipe)
    run = training.init(seed, objective)
    opt_state = optax.tree.set(
        run.state.opt_state,
        learning_rate=jnp.float32(learning_rate),
        total_steps=jnp.float32(steps),
    )
    state = dataclasses.replace(
        run.state, params=begin(run.state.params), opt_state=opt_state
    )
    run = dataclasses.replace(run, state=state)
    shape, chunk = recipe.network.shape, recipe.chunk
    held_out: Batch[jax.Array] | jax.Array = jnp.zeros((0, *shape), jnp.float32)
    if validation is not None:
        held_out = _fill_validation(validation)
    curve: list[float] = []
    numbers = _permutations(np.random.default_rng(seed), num_examples)
    for position in range(0, steps, chunk):
        count = min(chunk, steps - position)
        x = np.zeros((chunk * BATCH, *shape), np.float32)
        x[: count * BATCH] = draw(np.fromiter(numbers, np.int64, count * BATCH))
        batches = Batch(jnp.asarray(x.reshape(chunk, BATCH, *shape)))
        examples = batches, held_out
        run, report = advance(run, examples, *as_steps(position, position + count))
        if problem := describe_bad_step(run, recipe.steps_per_round, 0):
            raise NonFiniteError(f"{problem}: a lower learning_rate may help")
        terms = report.validation or report.train
        curve += np.asarray(terms["elbo"])[: int(report.num_lines)].tolist()
        if int(report.position) < position + count:  # nothing better was found for long
            break
    variables = cast(VariableDict, jax.device_get(run.variables))
    return Fitted(variables, np.array(curve), int(report.position))


def _permutations(rng: np.random.Generator, num_examples: int) -> Iterator[int]:
    """Numbers of examples without end, permutation after permutation."""
    while True:
        yield from rng.permutation(num_examples).tolist()


def _fill_validation(x: np.ndarray) -> Batch[jax.Array]:
    """`VALIDATION` examples; those added to fill the array have weight 0."""
    rows = np.arange(VALIDATION)
    weight = np.where(rows < len(x), VALIDATION / len(x), 0.0)
    filled = x[np.minimum(rows, len(x) - 1)]
    return Batch(jnp.asarray(filled), weight=jnp.asarray(weight, jnp.float32))


def apply(
    network: Network,
    variables: VariableDict,
    method: Callable[..., R],
    x: np.ndarray,
    *,
    seed: int = 0,
) -> R:
    """``method(model, x, key=key)`` of each example, in batches.

    An example's key depends on its number, so its draws do not depend on the batches.

    Args:
      network: the model.
      variables: its variables.
      method: from a bound model, examples ``(1, ...)`` and a key to a tree of arrays
        ``(1, ...)``; a function of a module, as it is a part of the program's identity.
      x: examples or codes, ``(N, ...)`` float32.
      seed: of the keys.

    Returns:
      A tree of NumPy arrays ``(N, ...)``.
    """
    N = len(x)
    size = next((size for size in SIZES if size >= N), SIZES[-1])
    compute, parts = _compiled_apply(), []
    for first in range(0, N, size):
        rows = np.minimum(np.arange(first, first + size), N - 1)
        numbers = (seed, first)
        part = compute(network, method, variables, jnp.asarray(x[rows]), numbers)
        parts.append(jax.tree.map(lambda a, n=N - first: np.asarray(a)[:n], part))
    joined: R = jax.tree.map(lambda *arrays: np.concatenate(arrays), *parts)
    return joined


def _apply(
    network: Network,
    method: Callable[..., R],
    variables: VariableDict,
    x: jax.Array,
    numbers: tuple[jax.Array, jax.Array],
) -> R:
    seed, first = numbers
    model, root = build_model(network), jax.random.key(seed)

    def one(x: jax.Array, row: jax.Array) -> R:
        key = jax.random.fold_in(root, row)
        result = model.apply(variables, x[None], key=key, method=method)
        return cast(R, jax.tree.map(lambda leaf: leaf[0], result))

    return jax.vmap(one)(x, first + jnp.arange(len(x), dtype=jnp.int32))


@functools.cache
def _compiled_apply() -> jax.stages.Wrapped:
    """`_apply`; asking for the options of the backend must wait for the first call."""
    return jax.jit(_apply, static_argnums=(0, 1), compiler_options=light_options())
