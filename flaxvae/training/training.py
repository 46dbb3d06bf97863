"""What is trained, on what data, for which objective and how."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from flaxvae.batch import Batch
from flaxvae.checks import InputError, check_choice, show
from flaxvae.compiler import lightest_options
from flaxvae.data import Dataset
from flaxvae.models.variables import initialize_from_data
from flaxvae.objectives import ELBO
from flaxvae.objectives.objective import (
    Completed,
    Objective,
    Terms,
    as_objective,
    with_arrays,
)
from flaxvae.schedules import Clock, at_full_value
from flaxvae.training.compatibility import (
    check_batches,
    check_model,
    check_support,
    check_weights,
)
from flaxvae.training.diagnostics import code_moments, describe_codes
from flaxvae.training.epochs import PLAIN, Examples, Layout, Report, Stored, run_epochs
from flaxvae.training.evaluate import make_evaluate
from flaxvae.training.inputs import learns_labels
from flaxvae.training.keys import Stream, stream_key
from flaxvae.training.optimization import (
    Optimization,
    choose_optimization,
    complete_optimization,
    expect_dataset,
)
from flaxvae.training.optimizers import check_paths, freeze
from flaxvae.training.parallel import ONE_DEVICE, Devices
from flaxvae.training.state import (
    LoopState,
    Metrics,
    TrainState,
    create_loop_state,
    create_state,
)
from flaxvae.training.step import train_step, update
from flaxvae.training.storage.fingerprint import fingerprint
from flaxvae.types import PyTree

DEFAULT_OBJECTIVE = ELBO()


@dataclass(frozen=True, eq=False)
class Training:
    """All that decides the numbers of a run, apart from its seed.

    ``fit(Training(vae, digits, ELBO(beta=4.0)))`` runs it; the runs of one object, such
    as those of several seeds, share its compiled programs. Its methods are pure
    functions, compiled by whoever calls them:

        run = training.init(seed)
        run, report = jax.jit(training.epochs)(run, examples, 0, 1000)

    Attributes:
      model: an unbound module with ``encode``, ``decode`` and ``prior``, such as `VAE`.
      dataset: what to train on; its test split is not touched.
      objective: what is minimised, or a function ``(vae, x, *, key) -> terms``.
      optimization: how the parameters are fitted; numbers of epochs and examples that
        were left open are filled in.
      optimizer: an Optax gradient transformation in place of what ``optimization`` says
        of optimizer, rates, decay and clipping.
      completed: the model with every part that the objective needs, and the objective
        with what it reads from the data.
      transformation: the optimizer of all parameters, as a step calls it.

    Raises:
      InputError: data that cannot be trained on, or parts that do not fit together.
    """

    model: nn.Module
    dataset: Dataset
    objective: Objective | Callable[..., Terms] = DEFAULT_OBJECTIVE
    optimization: Optimization = dataclasses.field(default_factory=Optimization)
    optimizer: optax.GradientTransformation | None = None
    completed: Completed = dataclasses.field(init=False, repr=False)
    transformation: optax.GradientTransformation = dataclasses.field(
        init=False, repr=False
    )

    def __post_init__(self) -> None:
        expect_dataset(self.dataset)
        chosen = complete_optimization(self.optimization, self.optimizer, self.dataset)
        objective = as_objective(self.objective)
        check_model(self.model, objective)
        check_support(self.model, self.dataset)
        parts = chosen.accumulation_steps
        check_batches(objective, chosen.batch_size or 1, parts, self.dataset)
        clock = chosen.clock(len(self.dataset.train))
        optimizer = self.optimizer or chosen.build(clock)
        completed = objective.complete(self.model, self.dataset)
        completed.objective.check(completed.model, self.dataset)
        check_weights(completed.objective, self.dataset)
        optimizer = freeze(completed.wrap_optimizer(optimizer), chosen.freeze)
        for name, value in (
            ("optimization", chosen),
            ("completed", completed),
            ("transformation", optimizer),
        ):
            object.__setattr__(self, name, value)

    @property
    def batch_size(self) -> int:
        """Examples in a training step, B."""
        return self.optimization.batch_size or 1

    @property
    def num_examples(self) -> int:
        """Training examples, N."""
        return len(self.dataset.train)

    @property
    def has_validation(self) -> bool:
        """Whether there are validation examples."""
        return len(self.dataset.validation) > 0

    @property
    def clock(self) -> Clock:
        """Steps and epochs of the run."""
        return self.optimization.clock(self.num_examples)

    @functools.cached_property
    def batch(self) -> Batch[jax.ShapeDtypeStruct]:
        """The shapes of a stored batch."""
        one = self.dataset.train[:1].batch(with_labels=learns_labels(self.model))
        shapes: Batch[jax.ShapeDtypeStruct] = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((self.batch_size, *x.shape[1:]), x.dtype),
            self.dataset.stored(one),
        )
        return shapes

    def init(
        self, seed: int | jax.Array, objective: Objective | None = None
    ) -> LoopState:
        """The run at step 0, compiled here unless an argument is traced.

        Args:
          seed: of the root key, from which all randomness follows; may be traced.
          objective: the training's own with other weights; may be traced.

        Raises:
          InputError: a term to compare or a part to freeze that does not exist, or
            batch normalization of single examples.
        """
        chosen = self.completed.objective if objective is None else objective
        args = jnp.asarray(seed, jnp.uint32), with_arrays(chosen)
        is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args))
        run = (self._init if is_traced else self._compiled_init)(*args)
        state = run.state
        parts = self.optimization.accumulation_steps
        if "batch_stats" in state.collections and self.batch_size < 2 * parts:
            raise InputError(
                f"batch_size must be >= {2 * parts} for a model with batch "
                "normalization, whose statistics are over the batch"
                f"{' of an accumulation step' if parts > 1 else ''}, got "
                f"{self.batch_size}"
            )
        check_paths("freeze", self.optimization.freeze, state.params)
        return dataclasses.replace(run, state=state.begin_collections())

    def step(self, state: TrainState, batch: Stored) -> tuple[TrainState, Metrics]:
        """The state after a step on a stored batch ``(B, ...)``; see `train_step`."""
        after: tuple[TrainState, Metrics] = self._compiled_step(state, batch)
        return after

    def _step(self, state: TrainState, batch: Stored) -> tuple[TrainState, Metrics]:
        return train_step(
            self.completed.model,
            self.transformation,
            self.dataset.preprocessing,
            state,
            batch,
            ema_decay=self.optimization.ema_decay,
            skip_above=self.optimization.skip_above,
            accumulation_steps=self.optimization.accumulation_steps,
            clock=self.clock,
            frozen=self.optimization.freeze,
        )

    def validate(
        self, state: TrainState, examples: Stored, devices: Devices = ONE_DEVICE
    ) -> tuple[Metrics, Metrics]:
        """The objective's terms on stored examples, and what `describe_codes` says."""
        found: tuple[Metrics, Metrics] = self._compiled_validate(
            state, examples, devices
        )
        return found

    def _validate(
        self, state: TrainState, examples: Stored, devices: Devices
    ) -> tuple[Metrics, Metrics]:
        evaluate = make_evaluate(
            self.completed.model, self.dataset.preprocessing, devices
        )
        key = stream_key(state.key, Stream.VALIDATION)
        measure = WithCodes(at_full_value(state.objective))
        means = evaluate(state.variables, measure, examples, key)
        return means["terms"], describe_codes(means["codes"])

    def epochs(
        self,
        run: LoopState,
        examples: Examples,
        position: jax.Array,
        until: jax.Array,
        layout: Layout = PLAIN,
    ) -> tuple[LoopState, Report]:
        """The run after ``until`` steps, and the lines of its epochs: `run_epochs`."""
        return run_epochs(self, run, examples, position, until, layout)

    def compile_epochs(
        self,
        layout: Layout,
        *args: PyTree,
        on_lowered: Callable[[], object] = lambda: None,
    ) -> Callable[..., tuple[LoopState, Report]]:
        """`epochs` for arguments like ``args``, compiled by the first run of several.

        A call takes the memory of the run that it is given. For ``on_lowered`` see
        `Devices.jit`.
        """
        if layout not in self._programs:
            advance = functools.partial(self.epochs, layout=layout)
            self._programs[layout] = layout.devices.jit(advance, donate=(0,))
        return self._programs[layout](*args, on_lowered=on_lowered)

    @functools.cached_property
    def _programs(self) -> dict[Layout, Callable[..., Callable]]:
        return {}

    def fingerprint(self, run: LoopState) -> dict[str, str]:
        """The checksum of initialization and train step; see `fingerprint`.

        ``optimizer`` is that of the optimizer alone, which is a part of the step.
        """
        state = jax.eval_shape(lambda: run.state)
        # What a step averages follows from what it computes, and an earlier version
        # averaged parameters alone.
        state = dataclasses.replace(state, ema_collections=None)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        with jax.enable_x64(False):  # a run continues under either setting
            # Of what has been traced already JAX returns the trace.
            created = self._compiled_init.trace(seed, state.objective)
            step = self._compiled_step.trace(state, self.batch)
            # As a constant the loss is in the checksum only where it is used.
            loss = jnp.zeros((), jnp.float32)
            of_loss = functools.partial(update, self.transformation, loss=loss)
            traced = jax.jit(of_loss).trace(state.params, state.opt_state, state.params)
        of_optimizer = fingerprint(traced.jaxpr)["checksum"]
        return fingerprint(created.jaxpr, step.jaxpr) | {"optimizer": of_optimizer}

    @functools.cached_property
    def _compiled_step(self) -> jax.stages.Wrapped:
        # Within other programs too, which then share one trace.
        return jax.jit(self._step)

    @functools.cached_property
    def _compiled_validate(self) -> jax.stages.Wrapped:
        return jax.jit(self._validate, static_argnums=2)

    @functools.cached_property
    def _compiled_init(self) -> jax.stages.Wrapped:
        # One compilation instead of one per operation, and the lightest: it runs once.
        return jax.jit(self._init, compiler_options=lightest_options())

    def _init(self, seed: jax.Array, objective: Objective) -> LoopState:
        model, preprocess = self.completed.model, self.dataset.preprocessing
        x = jax.eval_shape(preprocess, self.batch.x, jax.random.key(0))
        sample = self.batch.with_x(x).without_weight()
        state = create_state(
            model,
            objective,
            self.transformation,
            jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, _type_of(leaf)), sample),
            seed=seed,
        )
        if self.optimization.ema_decay > 0:  # that of the collections begins in `init`
            ema = jax.tree.map(jnp.copy, state.params)
            state = dataclasses.replace(state, ema=ema)
        variables = {"params": state.params, **state.collections}
        of_data = initialize_from_data(model, variables, self._some_examples)
        collections = dict(of_data)
        state = state.begin(collections.pop("params"), collections)
        _, terms = self._compiled_step.trace(state, self.batch).out_info
        stops_early = self.optimization.early_stopping is not None
        if stops_early:
            monitor = self.optimization.monitor
            watched = objective.monitor if monitor is None else monitor
            check_choice("monitor", watched, terms)
        return create_loop_state(
            state,
            terms,
            early_stopping=stops_early,
            has_weights=self.dataset.train.weights is not None,
        )

    def _some_examples(self, count: int) -> jax.Array:
        """Training examples at random as the model sees them, the same for any seed."""
        x, N = self.dataset.train.x, self.num_examples
        rows = np.random.default_rng(0).choice(N, count, replace=count > N)
        preprocess = self.dataset.preprocessing
        seen: jax.Array = preprocess.prepare(jnp.asarray(preprocess.stored(x[rows])))
        return jnp.nan_to_num(seen) if preprocess.masked else seen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class WithCodes:
    """An objective that also reports how the latent dimensions are used."""

    objective: Objective

    def __call__(
        self, vae: nn.Module, x: jax.Array, *, key: jax.Array
    ) -> dict[str, Metrics]:
        """The objective's terms, and `code_moments` with the same key."""
        terms = self.objective(vae, x, key=key)
        return {"terms": terms, "codes": code_moments(vae, x, key=key)}


def as_training(
    model: nn.Module | Training,
    dataset: Dataset | None,
    *,
    objective: Objective | Callable[..., Terms] = DEFAULT_OBJECTIVE,
    optimization: Optimization | None = None,
    optimizer: str | optax.GradientTransformation | None = None,
    choices: Mapping[str, object] = MappingProxyType({}),
) -> Training:
    """The training that the arguments of `flaxvae.training.fit` describe.

    Raises:
      InputError: what no run could use, or more than a `Training` beside one.
    """
    chosen, own = choose_optimization(optimization, optimizer, choices)
    if not isinstance(model, Training):
        return Training(model, expect_dataset(dataset), objective, chosen, own)
    stated = {
        "dataset": dataset,
        "objective": None if objective is DEFAULT_OBJECTIVE else objective,
        "optimization": optimization,
        "optimizer": optimizer,
        **choices,
    }
    for name, value in stated.items():
        if value is not None:
            raise InputError(
                f"{name} must be left out beside a Training, got {show(value)}"
            )
    return model


def _type_of(leaf: jax.ShapeDtypeStruct) -> np.dtype:
    """The type that the array has on a device."""
    return jax.dtypes.canonicalize_dtype(leaf.dtype)
