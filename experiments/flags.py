"""Flags that several commands share, as groups of their own in ``--help``."""

import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax

import flaxvae
from flaxvae.checks import InputError, check_above, check_at_least, check_seed
from flaxvae.data import Dataset
from flaxvae.models import ENCODERS, LIKELIHOODS, VAE, build_vae
from flaxvae.objectives import OBJECTIVES, Objective, is_weight, parameters_of
from flaxvae.schedules import build_schedule
from flaxvae.training import Engine, build_optimizer, with_critic

EXAMPLES_SEEN = 30 * 57_000  # in a training whose length nobody chose
MOST_EPOCHS = 300


@dataclass(frozen=True)
class DataFlags:
    """The data: a name, ``tfds:NAME``, or a path."""

    dataset: str = "auto"
    """auto (MNIST if it can be had, else digits), a name, tfds:NAME, or a path."""
    data_dir: Path | None = None
    """Folder with the files of a named set; None: the folder of TensorFlow Datasets."""
    validation_size: int | float = 0.05
    """Training examples held out for validation: a count, or a fraction if < 1."""
    test_size: int | float = 0.1
    """The same for the test split, where the data come without one."""
    split_seed: int = 0
    """Chooses the examples of these splits, and of --num_examples."""
    num_examples: int | None = None
    """Use so many of the examples; None: all."""
    binarize: Literal["none", "dynamic", "static", "threshold"] = "none"
    """Grey to 0 and 1: drawn anew each time (dynamic), once (static), or threshold."""
    dequantize: bool = False
    """Add uniform noise to integers, anew each time."""
    standardized: bool | None = None
    """Columns of a table with mean 0 and deviation 1; None: tables yes, images no."""
    label_column: str | None = None
    """Column of a table with the classes, which is no part of an example."""
    categorical: tuple[str, ...] = ()
    """Columns of a table to write as one number a category, 0 or 1."""
    impute: Literal["mean", "median"] | None = None
    """Fill gaps of a table by the training split's; None: refuse them."""

    def check(self) -> None:
        """Refuses values that no run could use, before anything is loaded."""
        for name in ("validation_size", "test_size"):
            check_at_least(name, getattr(self, name), 0)
        check_seed(self.split_seed)
        if self.num_examples is not None:
            check_at_least("num_examples", self.num_examples, 1)

    def load(self) -> Dataset:
        """The data set; says on the terminal what a user should know of the choice."""
        values = flag_values(self)
        source, data_dir = values.pop("dataset"), values.pop("data_dir")
        folder = data_dir and data_dir.expanduser()
        dataset = flaxvae.data.load(source, data_dir=folder, **values)
        if dataset.notice:
            print(f"NOTE: {dataset.notice}", file=sys.stderr)
        return dataset


@dataclass(frozen=True)
class NetworkFlags:
    """The parts of the model; None: the default of the chosen part."""

    encoder: Literal["mlp", "conv", "resnet"] = "mlp"
    """Multilayer perceptron, convolutions, or stages of residual blocks."""
    decoder: Literal["mlp", "conv", "resnet"] | None = None
    """The same choices; None: the mirror of the encoder."""
    hidden: tuple[int, ...] | None = None
    """Widths of the encoder's dense layers (mlp: 256 256); the decoder's in reverse."""
    filters: tuple[int, ...] | None = None
    """Filters of each stage of the encoder (32 64); the decoder's in reverse."""
    kernel_size: int | None = None
    """Rows and columns of the kernels (3; 4 in the decoder conv)."""
    strides: tuple[int, ...] | None = None
    """Factor by which a stage makes images smaller (2), or one for each stage."""
    padding: Literal["SAME", "VALID"] | int | None = None
    """Of strided convolutions: SAME, VALID, or rows and columns on each side (SAME)."""
    num_residual_blocks: int | None = None
    """Residual blocks in a stage (2)."""
    bottleneck: int | None = None
    """Times fewer channels inside a residual block (4)."""
    resampling: Literal["stride", "resize"] | None = None
    """Of residual networks: by strided convolutions, or resize, then convolution."""
    activation: Literal["elu", "gelu", "leaky_relu", "relu", "silu", "tanh"] = "relu"
    """Activation function."""
    negative_slope: float | None = None
    """Slope of leaky_relu below 0 (0.01)."""
    normalization: Literal["none", "batch", "group", "layer"] | None = None
    """Normalization before each activation; None: none, or as the command says."""
    dropout: float = 0.0
    """Share of activations set to 0 in training."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the networks' computation; parameters and losses are float32 always."""

    likelihood: (
        Literal[
            "bernoulli",
            "continuous_bernoulli",
            "normal",
            "laplace",
            "discretized_logistic",
            "discretized_logistic_mixture",
            "categorical",
        ]
        | None
    ) = None
    """p(x|z): on {0, 1}, [0, 1], real numbers (two), levels (three); None: 1st, 3rd."""
    scale: Literal["shared", "fixed", "learned"] | None = None
    """Of normal, laplace, discretized_logistic: one learned, given, or one a pixel."""
    init_scale: float | None = None
    """The fixed scale, or the shared one before training (1)."""
    mean_activation: Literal["none", "sigmoid", "tanh"] | None = None
    """Function that these three apply to their locations (none)."""
    levels: int | None = None
    """Values a pixel can have, for the last three likelihoods; None: as in the data."""
    num_components: int | None = None
    """Components of the mixture (10)."""

    def check(self, latent_dim: int = 1) -> None:
        """Refuses values that no run could use, before anything is loaded."""
        self.build((8, 8, 1), latent_dim)

    def build(
        self,
        data_shape: Sequence[int],
        latent_dim: int,
        levels: int | None = None,
        *,
        defaults: Mapping[str, Any] | None = None,
        **parts: Any,
    ) -> VAE:
        """The VAE for examples of ``data_shape`` with ``levels`` values a pixel.

        ``defaults`` stand where no flag does, ``parts`` are other arguments of
        `build_vae`.

        Without a choice images get a Bernoulli and rows a normal likelihood.
        """
        likelihood = "normal" if len(data_shape) == 1 else "bernoulli"
        settings = self.settings(
            levels, **{"likelihood": likelihood, **(defaults or {})}
        )
        return build_vae(data_shape, latent_dim, **settings, **parts)

    def settings(self, levels: int | None = None, **defaults: Any) -> dict[str, Any]:
        """The flags as settings of a model, with a command's own ``defaults``."""
        settings = flag_values(self)
        settings |= {k: v for k, v in defaults.items() if settings[k] is None}
        has_levels = hasattr(LIKELIHOODS[settings["likelihood"]], "levels")
        if self.levels is None and has_levels:
            settings["levels"] = levels
        return settings

    def describe(
        self,
        data_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = ENCODERS["mlp"].hidden,
    ) -> str:
        """Pixels, widths and code, such as ``784-400-20`` or ``conv 32-64, z 20``.

        ``hidden`` are the widths of the command's MLP where no flag says others.
        """
        if self.encoder == "mlp" and self.decoder in (None, "mlp"):
            sizes = (math.prod(data_shape), *(self.hidden or hidden), latent_dim)
            return "-".join(map(str, sizes))
        kinds: list[str] = [self.encoder]
        if self.decoder not in (None, self.encoder):
            kinds.append(str(self.decoder))
        filters = self.filters or ENCODERS["conv"].filters
        widths = [f"-{width}" for width in self.hidden or ()]
        stages = "-".join(map(str, filters)) + "".join(widths)
        return f"{' and '.join(kinds)} {stages}, z {latent_dim}"


@dataclass(frozen=True)
class ObjectiveFlags:
    """What is minimised, and the distributions of z; None: as the method has it."""

    objective: Literal[
        "elbo",
        "iwae",
        "miwae",
        "piwae",
        "ciwae",
        "tcvae",
        "factor",
        "dip",
        "info",
        "wae",
    ] = "elbo"
    """Bound or loss; papers: arXiv 1312.6114, 1509.00519, 1802.04537 (3), 1802.04942,
    1802.05983, 1711.00848, 1706.02262, 1711.01558."""
    beta: float | None = None
    """Weight of the KL (elbo: 1), or of the total correlation (tcvae: 6)."""
    capacity: float | None = None
    """elbo: nats that the KL is drawn to (arXiv 1804.03599)."""
    free_bits: float | None = None
    """elbo: nats that a dimension's KL counts as at least (arXiv 1606.04934)."""
    kl: Literal["analytic", "sampled"] | None = None
    """elbo: in closed form where there is one, or by the draws."""
    num_samples: int | None = None
    """Draws of z for each example: elbo (1), iwae (50), miwae, piwae, ciwae (64)."""
    num_means: int | None = None
    """miwae, piwae: groups of these draws (8)."""
    estimator: Literal["standard", "stl", "dreg"] | None = None
    """iwae, miwae: of the encoder's gradient (arXiv 1703.09194, 1810.04152)."""
    mixing: float | None = None
    """ciwae: share of the elbo (0.5)."""
    alpha: float | None = None
    """tcvae (1), info (0): weight of the mutual information."""
    gamma: float | None = None
    """factor: of the total correlation (10); tcvae: dimensions' own divergences (1)."""
    critic_learning_rate: float | None = None
    """factor: step size of the critic's Adam (1e-4)."""
    sampling: Literal["weighted", "stratified"] | None = None
    """tcvae: how a batch stands for all examples."""
    off_diagonal: float | None = None
    """dip: weight of the covariances (10)."""
    on_diagonal: float | None = None
    """dip: weight of the variances (10)."""
    version: Literal[1, 2] | None = None
    """dip: covariance of the posterior means (1) or of z (2)."""
    mmd_weight: float | None = None
    """info, wae: weight of the discrepancy between codes and prior (10)."""
    kernel: Literal["imq", "rbf"] | None = None
    """info (rbf), wae (imq): kernel of that discrepancy."""
    kl_schedule: Literal["constant", "linear", "sigmoid", "cyclical"] = "constant"
    """Course of beta: from 0 to its value (linear, sigmoid), again and again."""
    kl_epochs: float | None = None
    """Epochs that this takes; None: a third of all, cyclical: all."""
    kl_cycles: int | None = None
    """cyclical: how often (4) (arXiv 1903.10145)."""

    prior: Literal["normal", "mixture", "vamp", "flow", "conditional"] = "normal"
    """p(z): N(0, I), mixture, VampPrior (arXiv 1705.07120), flow (1605.08803), or
    --conditional: N(mean, variance) of each class."""
    prior_components: int | None = None
    """Components of the mixture (10), pseudo-inputs of the VampPrior (500)."""
    prior_flow: Literal["coupling", "autoregressive"] | None = None
    """Layers of the flow: affine coupling (default), or masked autoregressive."""
    prior_flows: int | None = None
    """Number of these layers (4)."""
    posterior: Literal["diagonal", "full", "iaf", "planar", "radial"] = "diagonal"
    """q(z|x): normal, with covariance, or flows (arXiv 1606.04934, 1505.05770)."""
    posterior_flows: int | None = None
    """Layers of these flows: iaf (2), planar and radial (10)."""

    def check(self) -> None:
        """Refuses values that no run could use, before anything is loaded."""
        self._choose(num_examples=2)
        for name in ("beta", "capacity", "free_bits", "off_diagonal", "on_diagonal"):
            if (value := getattr(self, name)) is not None:
                check_at_least(name, value, 0)
        if self.critic_learning_rate is not None:
            check_above("critic_learning_rate", self.critic_learning_rate, 0)
            if self.objective != "factor":
                raise InputError(
                    "critic_learning_rate must be left out for the objective "
                    f"{self.objective}, got {self.critic_learning_rate}"
                )
        needs_diagonal = (
            self.objective in ("tcvae", "dip", "factor") or self.free_bits is not None
        )
        if needs_diagonal and self.posterior != "diagonal":
            what = "free_bits" if self.free_bits is not None else self.objective
            raise InputError(
                f"posterior must be diagonal for {what}, which weighs each dimension, "
                f"got {self.posterior}"
            )
        if self.free_bits is not None and self.prior != "normal":
            raise InputError(
                "prior must be normal for free_bits, which weighs each dimension, got "
                f"{self.prior}"
            )
        if self.num_samples is not None:
            check_at_least("num_samples", self.num_samples, 1)
        if self.num_means is not None:
            check_at_least("num_means", self.num_means, 1)
            samples = self.num_samples or 64
            if samples % self.num_means:
                raise InputError(
                    f"num_means must divide num_samples, {samples}, into equal parts, "
                    f"got {self.num_means}"
                )
        if self.kl_schedule == "constant":
            for name in ("kl_epochs", "kl_cycles"):
                if (value := getattr(self, name)) is not None:
                    raise InputError(
                        f"{name} must be left out where kl_schedule is constant, got "
                        f"{value}"
                    )
        if self.kl_cycles is not None:
            check_at_least("kl_cycles", self.kl_cycles, 1)
            if self.kl_schedule != "cyclical":
                raise InputError(
                    f"kl_cycles must be left out where kl_schedule is "
                    f"{self.kl_schedule}, got {self.kl_cycles}"
                )
        if self.kl_epochs is not None:
            check_above("kl_epochs", self.kl_epochs, 0)

    def for_fit(self, num_examples: int, epochs: int, per_epoch: int) -> dict[str, Any]:
        """These flags as arguments of `flaxvae.training.fit`.

        Args:
          num_examples: N of the training split.
          epochs: of the run.
          per_epoch: steps of an epoch.
        """
        objective, weights = self._choose(num_examples)
        schedules = {}
        if self.kl_schedule != "constant":
            share = 1.0 if self.kl_schedule == "cyclical" else 1 / 3
            length = self.kl_epochs or share * epochs
            schedules["beta"] = build_schedule(
                self.kl_schedule, max(1, round(length * per_epoch)), self.kl_cycles or 4
            )
        return {"objective": objective, "weights": weights, "schedules": schedules}

    def add_critic(self, optimizer: Any) -> Any:
        """The optimizer, with one for the critic where the objective has one."""
        if self.objective != "factor":
            return optimizer
        return with_critic(optimizer, self.critic_learning_rate or 1e-4)

    def _choose(self, num_examples: int) -> tuple[Objective, dict[str, float]]:
        """The objective with its fixed choices, and its weights."""
        function = OBJECTIVES[self.objective]
        parameters = parameters_of(function)
        given = {
            name: getattr(self, name)
            for name in METHOD_FLAGS
            if getattr(self, name) is not None
        }
        for name, value in given.items():
            if name not in parameters:
                known = ", ".join(parameters)
                raise InputError(
                    f"{name} must be left out for the objective {self.objective}, "
                    f"which has {known}, got {value}"
                )
        if "num_examples" in parameters:
            given["num_examples"] = num_examples
        if "beta" in parameters:
            given.setdefault("beta", parameters["beta"].default)
        elif self.kl_schedule != "constant":
            raise InputError(
                f"kl_schedule must be constant for the objective {self.objective}, "
                f"which has no beta, got {self.kl_schedule}"
            )
        fixed = {k: v for k, v in given.items() if not is_weight(parameters[k])}
        weights = {k: float(v) for k, v in given.items() if k not in fixed}
        return (functools.partial(function, **fixed) if fixed else function), weights


PARTS = (
    "prior",
    "prior_components",
    "prior_flow",
    "prior_flows",
    "posterior",
    "posterior_flows",
)
"""Flags of `ObjectiveFlags` that are arguments of `build_vae`."""
METHOD_FLAGS = (
    "beta",
    "capacity",
    "free_bits",
    "kl",
    "num_samples",
    "num_means",
    "estimator",
    "mixing",
    "alpha",
    "gamma",
    "sampling",
    "off_diagonal",
    "on_diagonal",
    "version",
    "mmd_weight",
    "kernel",
)
"""Flags of `ObjectiveFlags` that only some objectives have."""


@dataclass(frozen=True)
class TrainingFlags:
    """How the model is trained."""

    epochs: int | None = None
    """Times the training examples are seen; None: what suits the data."""
    batch_size: int = 128
    """Examples in a training step."""
    optimizer: Literal[
        "adabelief",
        "adam",
        "adamax",
        "adamw",
        "lion",
        "nadam",
        "radam",
        "rmsprop",
        "sgd",
    ] = "adam"
    """Optimizer, with Optax's default constants."""
    lr_schedule: Literal["constant", "cosine", "exponential", "linear"] = "constant"
    """Course of the step size: to 0 (cosine, linear), to 1 % (exponential)."""
    warmup_epochs: float = 0.0
    """Epochs in which the step size rises from 0."""
    weight_decay: float | None = None
    """Decoupled weight decay of kernels; None: 1e-4 for adamw, else none."""
    clip_norm: float | None = None
    """Largest norm of the gradient; None: no clipping."""
    skip_above: float | None = None
    """Skip and count updates of larger or non-finite norm (inf: the latter only)."""
    ema_decay: float = 0.0
    """Decay of the moving average of parameters to validate and keep; 0: none."""
    early_stopping: int | None = None
    """Stop after so many epochs without a better validation -ELBO, keep the best."""
    precision: Literal["default", "high", "highest"] = "default"
    """Of matrix products on GPU and TPU; TPU's default moves an ELBO by about 1 %."""

    def check(self) -> None:
        """Refuses values that no run could use, before anything is loaded."""
        if self.epochs is not None:
            check_at_least("epochs", self.epochs, 1)
        check_at_least("batch_size", self.batch_size, 1)
        check_at_least("warmup_epochs", self.warmup_epochs, 0)
        self._build_optimizer(1.0, None, 0)

    def set_precision(self) -> None:
        """Chooses the precision of every matrix product of this process."""
        if self.precision != "default":
            jax.config.update("jax_default_matmul_precision", self.precision)

    def choose_epochs(self, dataset: Dataset) -> int:
        """As asked for; else 30 for MNIST, more for fewer examples, 300 at most."""
        fitting = round(EXAMPLES_SEEN / len(dataset.train))
        return self.epochs or min(max(fitting, 1), MOST_EPOCHS)

    def for_fit(
        self, dataset: Dataset, epochs: int, learning_rate: float
    ) -> dict[str, Any]:
        """These flags as arguments of `flaxvae.training.fit`."""
        steps_per_epoch = max(1, len(dataset.train) // self.batch_size)
        return {
            "optimizer": self._build_optimizer(
                learning_rate,
                epochs * steps_per_epoch,
                round(self.warmup_epochs * steps_per_epoch),
            ),
            "epochs": epochs,
            "batch_size": self.batch_size,
            "early_stopping": self.early_stopping,
            "ema_decay": self.ema_decay,
            "skip_above": self.skip_above,
        }

    def _build_optimizer(
        self, learning_rate: float, total_steps: int | None, warmup_steps: int
    ) -> Any:
        return build_optimizer(
            self.optimizer,
            learning_rate,
            schedule=self.lr_schedule if total_steps else "constant",
            warmup_steps=warmup_steps,
            total_steps=total_steps,
            weight_decay=self.weight_decay,
            clip_norm=self.clip_norm,
        )


@dataclass(frozen=True)
class StartFlags:
    """What is set up before the first array is made."""

    compilation_cache: bool = True
    """Keep compiled programs in the user's cache folder, for the next start."""
    coordinator: str | None = None
    """HOST:PORT of process 0 of several; TPU VMs and SLURM need no such flag."""
    num_processes: int | None = None
    """Number of processes, with --coordinator."""
    process_id: int | None = None
    """Number of this process, from 0, with --coordinator."""


def read_seeds(texts: Sequence[str]) -> list[int]:
    """Seeds of numbers and of ranges such as ``0..7``, each once."""
    seeds: list[int] = []
    for text in texts:
        first, dots, last = text.partition("..")
        try:
            seeds += range(int(first), int(last) + 1) if dots else [int(first)]
        except ValueError as error:
            raise InputError(
                f"seed must be numbers or ranges such as 0..7, got {text!r}"
            ) from error
    if not seeds:
        raise InputError("seed must have a value, got none")
    for seed in seeds:
        check_seed(seed)
    return list(dict.fromkeys(seeds))


def flag_values(flags: Any) -> dict[str, Any]:
    """Every flag by name, those of groups too."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        if dataclasses.is_dataclass(value):
            values |= flag_values(value)
        else:
            values[field.name] = value
    return values


NOT_SETTINGS = {
    field.name for group in (Engine, StartFlags) for field in dataclasses.fields(group)
}
"""Flags of `Engine` and `StartFlags`: another value gives the same numbers."""
