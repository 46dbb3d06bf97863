"""Optimizers and learning-rate schedules by name, put together from Optax."""

from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import KeyPath

from flaxvae.checks import InputError, check_above, check_at_least, check_choice
from flaxvae.training.muon import muon
from flaxvae.types import PyTree

OptimizerName = Literal[
    "adabelief",
    "adam",
    "adamax",
    "adamw",
    "lion",
    "muon",
    "nadam",
    "radam",
    "rmsprop",
    "sgd",
]
# Each makes the update for a learning rate of 1.
OPTIMIZERS: dict[OptimizerName, Callable[[], optax.GradientTransformation]] = {
    "adabelief": lambda: optax.adabelief(1.0),
    "adam": lambda: optax.adam(1.0),
    "adamax": lambda: optax.adamax(1.0),
    "adamw": lambda: optax.adam(1.0),  # its weight decay is added below, as for all
    "lion": lambda: optax.lion(1.0, weight_decay=0.0),
    "muon": lambda: muon(_are_kernels),
    "nadam": lambda: optax.nadam(1.0),
    "radam": lambda: optax.radam(1.0),
    "rmsprop": lambda: optax.rmsprop(1.0),
    "sgd": lambda: optax.sgd(1.0, momentum=0.9),
}
ADAMW_WEIGHT_DECAY = 1e-4  # Optax's default

LearningRateSchedule = Literal["constant", "cosine", "exponential", "linear"]
LEARNING_RATE_SCHEDULES: dict[LearningRateSchedule, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, steps),
    "exponential": lambda steps: optax.exponential_decay(1.0, steps, 0.01),
    "linear": lambda steps: optax.linear_schedule(1.0, 0.0, steps),
}


def adam(learning_rate: float = 1e-3) -> optax.GradientTransformation:
    """Adam with its learning rate as an array in the optimizer's state.

    Changing the rate, or sweeping over it, then recompiles nothing.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, arXiv
    1412.6980.
    """
    return build_optimizer("adam", learning_rate)


def build_optimizer(
    name: OptimizerName = "adam",
    learning_rate: float = 1e-3,
    *,
    schedule: LearningRateSchedule = "constant",
    warmup_steps: int = 0,
    total_steps: int | None = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
) -> optax.GradientTransformation:
    """Builds an optimizer whose learning rate and weight decay are part of its state.

    The update is -rate(step) * (direction + weight_decay * kernel), the direction that
    of the named optimizer with Optax's default constants (momentum 0.9 for ``sgd``),
    for gradients clipped to a global norm of ``clip_norm``. ``muon`` orthogonalizes the
    steps of kernels and moves everything else as ``nadam`` does, at one rate for both
    (`flaxvae.training.muon`). Its steps cost more than Adam's, so that it likes batches
    of 500 and more.

    Args:
      name: one of `OPTIMIZERS`.
      learning_rate: the highest rate, > 0.
      schedule: one of `LEARNING_RATE_SCHEDULES`, the factor after the warm-up:
        ``cosine`` and ``linear`` fall to 0 at the last step, ``exponential`` to 1 %.
      warmup_steps: steps in which the rate rises linearly from 0.
      total_steps: steps of the whole run; needed by every schedule but ``constant``.
      weight_decay: decoupled from the gradient (Loshchilov and Hutter, "Decoupled
        Weight Decay Regularization", 2017, arXiv 1711.05101), of kernels alone: arrays
        with two axes or more whose name has the word kernel, as those of Linen's layers
        (``kernel``) and of flows (``flow_0_kernel_in``). Biases, scales, embeddings,
        codebooks, pseudo-inputs and a prior's means and log-variances are left alone,
        and so is ``self.param("w", ...)`` in a module of your own: name it ``kernel``
        if it is to decay. None: 1e-4 for ``adamw``, else none.
      clip_norm: largest global norm of the gradient (Pascanu et al., "On the
        difficulty of training Recurrent Neural Networks", 2012, arXiv 1211.5063); None:
        no clipping.

    Raises:
      InputError: an unknown name, a value out of its range, or a warm-up as long as
        the run.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    check_choice("lr_schedule", schedule, LEARNING_RATE_SCHEDULES)
    check_above("learning_rate", learning_rate, 0)
    check_at_least("warmup_steps", warmup_steps, 0)
    if weight_decay is None and name == "adamw":
        weight_decay = ADAMW_WEIGHT_DECAY
    if weight_decay is not None:
        check_at_least("weight_decay", weight_decay, 0)
    if clip_norm is not None:
        check_above("clip_norm", clip_norm, 0)
    factor = _make_factor(schedule, warmup_steps, total_steps)

    def scaled(
        learning_rate: jax.Array, weight_decay: jax.Array | None = None
    ) -> optax.GradientTransformation:
        parts = [OPTIMIZERS[name]()]
        if weight_decay is not None:
            # The directions above point downhill already, hence the minus.
            parts.append(optax.add_decayed_weights(-weight_decay, _has_axes))
        parts.append(optax.scale(learning_rate))
        if factor is not None:
            parts.append(optax.scale_by_schedule(factor))
        return parts[0] if len(parts) == 1 else optax.chain(*parts)

    values = {"learning_rate": learning_rate}
    if weight_decay is not None:
        values["weight_decay"] = weight_decay
    optimizer = optax.inject_hyperparams(scaled)(**values)
    if clip_norm is not None:
        optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optimizer)
    if name != "muon":  # which has to see the names
        optimizer = _join_vectors(optimizer)
    return optimizer if weight_decay is None else _decay_kernels(optimizer)


def freeze(
    optimizer: optax.GradientTransformation, paths: Sequence[str]
) -> optax.GradientTransformation:
    """The optimizer for all parameters but those below the given paths.

    Args:
      optimizer: of the parameters that are trained.
      paths: names of parts such as ``"encoder"`` or ``"decoder/output"``.
    """
    if not paths:
        return optimizer
    return optax.partition(
        {"trained": optimizer, "frozen": optax.set_to_zero()},
        lambda params: jax.tree.map_with_path(
            lambda path, _: "frozen" if is_below(path, paths) else "trained", params
        ),
    )


def is_below(path: KeyPath, parents: Sequence[str]) -> bool:
    """Whether a leaf's path lies below one of the named parts, or is one."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return any(f"{name}/".startswith(f"{parent}/") for parent in parents)


def check_paths(name: str, paths: Sequence[str], params: optax.Params) -> None:
    """Raises `InputError` unless each path names a part of the parameters."""
    leaves = [path for path, _ in jax.tree.leaves_with_path(params)]
    for parent in paths:
        if not any(is_below(path, [parent]) for path in leaves):
            check_choice(f"part in {name}", parent, {*params} - {parent})


def _decay_kernels(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The same optimizer, which sees zeros for every matrix that is not a kernel.

    Of the parameters themselves only weight decay makes use: it adds a multiple of each
    to its update. Masked here, where parameters have names, the optimizer's state keeps
    its structure.
    """

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        def mask(path: KeyPath, leaf: jax.Array) -> jax.Array:
            is_left_alone = jnp.ndim(leaf) >= 2 and not _is_kernel(path)
            return jnp.zeros_like(leaf) if is_left_alone else leaf

        return optimizer.update(grads, state, jax.tree.map_with_path(mask, params))

    return optax.GradientTransformation(optimizer.init, update)


def _are_kernels(params: PyTree) -> PyTree:
    return jax.tree.map_with_path(
        lambda path, leaf: jnp.ndim(leaf) >= 2 and _is_kernel(path), params
    )


def _is_kernel(path: KeyPath) -> bool:
    """Whether the name of a parameter has the word kernel, as ``flow_0_kernel_in``."""
    name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")[2]
    return "kernel" in name.split("_")


def _join_vectors(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformation:
    """The same optimizer, to which all biases and scales are one array.

    Each array costs it a few kernels to compile and to start: in a residual network
    with BatchNorm two thirds of its arrays are vectors.
    """

    def join(tree: PyTree) -> list[jax.Array]:
        leaves = jax.tree.leaves(tree)
        vectors = [leaf for leaf in leaves if _is_vector(leaf)]
        rest = [leaf for leaf in leaves if not _is_vector(leaf)]
        return [*rest, jnp.concatenate(vectors)] if vectors else rest

    def part(joined: list[jax.Array], like: optax.Updates) -> optax.Updates:
        leaves, structure = jax.tree.flatten(like)
        rest, first, parted = iter(joined), 0, []
        for leaf in leaves:
            if _is_vector(leaf):
                parted.append(joined[-1][first : first + leaf.size])
                first += leaf.size
            else:
                parted.append(next(rest))
        return jax.tree.unflatten(structure, parted)

    def update(
        grads: optax.Updates, state: optax.OptState, params: optax.Params | None = None
    ) -> tuple[optax.Updates, optax.OptState]:
        joined = None if params is None else join(params)
        updates, state = optimizer.update(join(grads), state, joined)
        return part(updates, grads), state

    return optax.GradientTransformation(
        lambda params: optimizer.init(join(params)), update
    )


def _is_vector(leaf: jax.Array) -> bool:
    return leaf.ndim == 1 and leaf.dtype == jnp.float32


def _make_factor(
    schedule: LearningRateSchedule, warmup_steps: int, total_steps: int | None
) -> optax.Schedule | None:
    """What the learning rate is multiplied by, or None for always 1."""
    if schedule == "constant" and not warmup_steps:
        return None
    if schedule != "constant" and total_steps is None:
        raise InputError(f"total_steps must be stated for lr_schedule {schedule!r}")
    if total_steps is not None and warmup_steps >= total_steps:
        raise InputError(
            f"warmup_steps must be < {total_steps}, the steps of the run, got "
            f"{warmup_steps}"
        )
    after = LEARNING_RATE_SCHEDULES[schedule]((total_steps or 0) - warmup_steps)
    if not warmup_steps:
        return after
    # The first step is not wasted on a rate of 0: it rises to 1 at step warmup_steps.
    rise = optax.linear_schedule(1 / warmup_steps, 1.0, warmup_steps - 1)
    return optax.join_schedules([rise, after], [warmup_steps])


def _has_axes(params: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.ndim(leaf) >= 2, params)
