"""One train step: a pure function, compiled by whoever calls it."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from flaxvae.batch import Batch, as_batch
from flaxvae.checks import InputError, first_line, show
from flaxvae.collectives import mean_over_devices
from flaxvae.data.preprocess import Preprocess
from flaxvae.dtypes import keep_types, narrow
from flaxvae.models.bind import bind
from flaxvae.schedules import Clock, at_step
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimizers import is_below
from flaxvae.training.state import Metrics, TrainState, Variables


def train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    preprocess: Preprocess,
    state: TrainState,
    batch: Batch[jax.Array] | jax.Array,
    *,
    ema_decay: float = 0.0,
    skip_above: float | None = None,
    accumulation_steps: int = 1,
    clock: Clock | None = None,
    frozen: Sequence[str] = (),
) -> tuple[TrainState, Metrics]:
    """One step down the gradient of the batch mean of the objective's ``loss``.

    The mean is weighted where the batch has weights. Mutable collections (a BatchNorm's
    statistics) are updated; a module knows that it is being trained by
    ``self.is_mutable_collection("batch_stats")`` or ``self.has_rng("dropout")``, so no
    flag is handed through.

    Args:
      model: an unbound model.
      optimizer: an Optax gradient transformation.
      preprocess: from a stored batch to the model's input.
      state: the state before, which holds the objective and the root key.
      batch: stored examples, `Batch` or ``(B, ...)`` alone.
      ema_decay: share of the old average that a step keeps, in [0, 1); used where
        the state keeps an average, and lower in the first steps:
        min(ema_decay, (1 + step) / (10 + step)). Floating-point arrays of the mutable
        collections are averaged as the parameters are.
      skip_above: leave an update out, and count it in ``state.skipped``, if the loss
        or the gradient is not finite or the gradient's norm is above this; None: apply
        every update.
      accumulation_steps: into how many equal parts the batch is divided, whose
        gradients are computed one after the other and averaged. Each part has draws of
        its own, and updates the mutable collections.
      clock: the run's length, for an objective with schedules.
      frozen: parts of the model whose mutable collections stay as they are; the
        optimizer leaves their parameters alone (`flaxvae.training.optimizers.freeze`).

    Returns:
      The next state, and the batch means of the objective's terms, each ``()``, in nats
      per example.
    """
    batch = as_batch(batch)
    key_x = stream_key(state.key, Stream.PREPROCESS, state.step)
    batch = batch.with_x(preprocess(batch.x, key_x))
    key = stream_key(state.key, Stream.OBJECTIVE, state.step)
    key_network = stream_key(state.key, Stream.NETWORK, state.step)
    objective = at_step(state.objective, state.step, clock)

    def loss_fn(
        params: optax.Params,
        collections: Variables,
        batch: Batch[jax.Array],
        key: jax.Array,
        key_network: jax.Array,
    ) -> tuple[jax.Array, tuple[Metrics, Variables]]:
        def method(model: nn.Module, batch: Batch[jax.Array]) -> Metrics:
            return objective(*bind(model, batch), key=key)

        terms, collections = model.apply(
            {"params": params, **collections},
            batch,
            method=method,
            mutable=list(collections),
            rngs={"dropout": key_network, "codebook": key_network},
        )
        if batch.weight is not None and not terms["loss"].ndim:
            raise InputError(
                "weights must be left out for an objective whose loss is one number "
                f"for the batch, got {show(objective)}"
            )
        loss = narrow(jnp.mean(_weigh(terms["loss"], batch.weight)))
        metrics = _average_terms(jax.lax.stop_gradient(terms), batch.weight)
        return loss, (metrics, dict(collections))

    gradient = jax.grad(loss_fn, has_aux=True)
    keys = (key, key_network)
    if accumulation_steps > 1:
        gradient = _accumulate(gradient, accumulation_steps)
    grads, (metrics, collections) = mean_over_devices(
        gradient(state.params, state.collections, batch, *keys)
    )
    updates, opt_state = update(
        optimizer, grads, state.opt_state, state.params, metrics["loss"]
    )
    params = optax.apply_updates(state.params, updates)
    collections = _keep(frozen, state.collections, collections)
    next_state = dataclasses.replace(
        state,
        step=state.step + 1,
        params=params,
        collections=collections,
        opt_state=opt_state,
        ema=_average(state, params, ema_decay),
        ema_collections=_average_collections(state, collections, ema_decay),
    )
    next_state = keep_types(next_state, state)
    if skip_above is not None:
        norm = optax.tree.norm(grads)  # NaN compares as False
        fine = jnp.isfinite(metrics["loss"]) & (norm <= skip_above)
        next_state = _choose(fine, next_state, state)
    return next_state, metrics


def update(
    optimizer: optax.GradientTransformation,
    grads: optax.Updates,
    opt_state: optax.OptState,
    params: optax.Params,
    loss: jax.Array,
) -> tuple[optax.Updates, optax.OptState]:
    """The updates of parameters, and the optimizer's next state.

    An optimizer that takes it, such as `optax.contrib.reduce_on_plateau`, gets the loss
    of the batch as ``value``.

    Raises:
      InputError: an optimizer that needs more, such as a line search.
    """
    extended = optax.with_extra_args_support(optimizer)
    try:
        with contextlib.suppress(TypeError):  # of one that needs the loss
            return extended.update(grads, opt_state, params)
        return extended.update(grads, opt_state, params, value=loss)
    except (TypeError, ValueError) as error:
        raise InputError(
            "optimizer must be one that is updated with gradients, parameters and, as "
            f"value, the loss; its update failed: {first_line(error)}"
        ) from error


Gradient = Callable[..., tuple[optax.Params, tuple[Metrics, Variables]]]


def _accumulate(gradient: Gradient, parts: int) -> Gradient:
    """The gradient of a batch as the mean over equal parts, one after the other."""

    def divide(rows: jax.Array) -> jax.Array:
        # Row r belongs to part r % parts, so that every device has rows of each.
        return jnp.moveaxis(rows.reshape(-1, parts, *rows.shape[1:]), 1, 0)

    def accumulated(
        params: optax.Params,
        collections: Variables,
        batch: Batch[jax.Array],
        *keys: jax.Array,
    ) -> tuple[optax.Params, tuple[Metrics, Variables]]:
        def add_part(
            carry: tuple[Variables, optax.Params],
            part: tuple[jax.Array, Batch[jax.Array]],
        ) -> tuple[tuple[Variables, optax.Params], Metrics]:
            collections, total = carry
            number, rows = part
            own = (jax.random.fold_in(key, number) for key in keys)
            grads, (metrics, after) = gradient(params, collections, rows, *own)
            total = jax.tree.map(jnp.add, total, grads)
            return (keep_types(after, collections), total), metrics

        start = (collections, jax.tree.map(jnp.zeros_like, params))
        each = (jnp.arange(parts), jax.tree.map(divide, batch))
        (collections, total), metrics = jax.lax.scan(add_part, start, each)
        grads = jax.tree.map(lambda sum_: sum_ / parts, total)
        means = jax.tree.map(lambda term: jnp.mean(term, axis=0), metrics)
        return grads, (means, collections)

    return accumulated


def _average_terms(terms: Metrics, weight: jax.Array | None) -> Metrics:
    """The means of terms ``(B,)`` or ``()``, by one sum for each of the two shapes.

    On a GPU each sum is a kernel of its own.
    """
    metrics: Metrics = {}
    for shape in dict.fromkeys(term.shape for term in terms.values()):
        names = [name for name, term in terms.items() if term.shape == shape]
        rows = jnp.stack([_weigh(terms[name], weight) for name in names])
        means = narrow(jnp.mean(rows.reshape(len(names), -1), axis=1))
        metrics |= zip(names, means, strict=True)
    return metrics


def _weigh(term: jax.Array, weight: jax.Array | None) -> jax.Array:
    """A term, each example times its weight if it has one."""
    return term if weight is None else term * weight


def _keep(frozen: Sequence[str], before: Variables, after: Variables) -> Variables:
    """The collections after a step, those of frozen parts as before."""
    if not frozen:
        return after
    return {
        name: jax.tree.map_with_path(
            lambda path, old, new: old if is_below(path, frozen) else new,
            before[name],
            after[name],
        )
        for name in before
    }


def _average(
    state: TrainState, params: optax.Params, decay: float
) -> optax.Params | None:
    """The next exponential moving average of the parameters."""
    if state.ema is None:
        return None
    return optax.incremental_update(params, state.ema, 1 - _decay_now(state, decay))


def _average_collections(
    state: TrainState, collections: Variables, decay: float
) -> Variables | None:
    """The next average of floating-point arrays; of counts the newest value."""
    if state.ema_collections is None:
        return None
    rate = 1 - _decay_now(state, decay)

    def average(old: jax.Array, new: jax.Array) -> jax.Array:
        if not jnp.issubdtype(old.dtype, jnp.floating):
            return new
        return old + rate * (new - old)  # exactly old where new == old, as if frozen

    return jax.tree.map(average, state.ema_collections, collections)


def _decay_now(state: TrainState, decay: float) -> jax.Array:
    # A constant decay would remember the untrained parameters for long.
    return jnp.minimum(decay, narrow((1 + state.step) / (10 + state.step)))


def _choose(fine: jax.Array, after: TrainState, before: TrainState) -> TrainState:
    """``after`` if ``fine``; else ``before``, one step on and one skip more."""
    left_out = dataclasses.replace(before, step=after.step, skipped=before.skipped + 1)
    return jax.tree.map(lambda a, b: jnp.where(fine, a, b), after, left_out)
