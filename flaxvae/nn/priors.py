"""Priors over the latent code: modules ``() -> p(z)`` over ``(D,)``."""

from typing import ClassVar, Literal, cast, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Collection

from flaxvae.capabilities import ModelTraits
from flaxvae.checks import check_at_least, check_choice
from flaxvae.distributions import Distribution, Mixture, Normal
from flaxvae.distributions.flows import AffineCoupling, Autoregressive, Flow, Inverse
from flaxvae.distributions.mixture import MixtureOfBatch, mixture_over_batch
from flaxvae.nn.bounds import LOG_VAR_BOUNDS, soft_bound
from flaxvae.nn.flows import affine_parameters

PriorFlow = Literal["coupling", "autoregressive"]
FLOWS: tuple[PriorFlow, ...] = get_args(PriorFlow)


class StandardNormal(nn.Module):
    """p(z) = N(0, I) over ``(D,)``; no parameters."""

    is_standard: ClassVar[bool] = True

    latent_dim: int  # D

    def __call__(self) -> Normal:
        """The prior, with batch shape ``()``."""
        zeros = jnp.zeros(self.latent_dim, jnp.float32)
        return Normal(mean=zeros, log_var=zeros, event_ndim=1)


class MixturePrior(nn.Module):
    """A learned mixture of normal distributions with diagonal covariances.

    Initialized with equal weights, unit variances and means drawn from N(0, I).

    Source: Dilokthanakul et al., "Deep Unsupervised Clustering with Gaussian Mixture
    Variational Autoencoders", 2016, arXiv 1611.02648.
    """

    is_standard: ClassVar[bool] = False

    latent_dim: int  # D
    num_components: int = 10

    @nn.compact
    def __call__(self) -> Mixture:
        """The prior, with batch shape ``()``."""
        check_at_least("num_components", self.num_components, 1)
        shape = (self.num_components, self.latent_dim)
        zeros = nn.initializers.zeros_init()
        return Mixture(
            self.param("logits", zeros, shape[:1], jnp.float32),
            self.param("mean", nn.initializers.normal(1.0), shape, jnp.float32),
            self.param("log_var", zeros, shape, jnp.float32),
        )


class VampPrior(nn.Module):
    """The equally weighted mixture of the posteriors of learned pseudo-inputs.

    p(z) = (1/M) sum_m q(z|u_m). The parent model must have a method ``encode``. Unless
    posteriors are diagonal normals, a density costs M densities, each of D passes for
    an inverse-autoregressive flow. Pseudo-inputs start as uniform noise, or as training
    examples by `initialize_from_data`.

    Source: Tomczak and Welling, "VAE with a VampPrior", 2017, arXiv 1705.07120.
    """

    is_standard: ClassVar[bool] = False

    data_shape: tuple[int, ...]  # of an example
    num_components: int = 500  # M
    bounded: bool = True  # pseudo-inputs are clipped to [0, 1], as images are

    @nn.compact
    def __call__(self) -> Mixture | MixtureOfBatch:
        """The prior, with batch shape ``()``."""
        check_at_least("num_components", self.num_components, 1)
        shape = (self.num_components, *self.data_shape)
        uniform = nn.initializers.uniform(1.0)
        u = self.param("pseudo_inputs", uniform, shape, jnp.float32)
        model = cast(nn.Module, self.parent)
        condition = ModelTraits.of(model).condition
        if condition is not None:  # classes in rotation
            model = model.given(condition.example(self.num_components))
        q = self._encode(model, jnp.clip(u, 0.0, 1.0) if self.bounded else u)
        return mixture_over_batch(q)

    @nn.nowrap
    def _encode(self, model: nn.Module, u: jax.Array) -> Distribution:
        q: Distribution = model.encode(u)
        return q

    @nn.nowrap
    def initialize_from_data(
        self, params: Collection, examples: jax.Array
    ) -> Collection:
        """The parameters with ``examples`` ``(M, ...)`` as pseudo-inputs."""
        return {**params, "pseudo_inputs": examples}


class TopVampPrior(VampPrior):
    """A `VampPrior` of the top level of a model with levels.

    The parent model must have a method ``encode_top``.
    """

    @nn.nowrap
    def _encode(self, model: nn.Module, u: jax.Array) -> Distribution:
        q: Distribution = model.encode_top(u)
        return q


class FlowPrior(nn.Module):
    """A learned p(z): invertible layers on N(0, I), initialized to the identity.

    ``"coupling"``: equally fast in both directions; ``"autoregressive"`` (a masked
    autoregressive flow): more flexible, densities in one pass, draws in D passes.

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2016,
    arXiv 1605.08803; Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for
    Density Estimation", 2017, arXiv 1705.07057; as a prior: Chen et al., "Variational
    Lossy Autoencoder", 2016, arXiv 1611.02731.
    """

    is_standard: ClassVar[bool] = False

    latent_dim: int  # D
    flow: PriorFlow = "coupling"
    num_flows: int = 4
    width: int = 128  # H, hidden units of a layer

    @nn.compact
    def __call__(self) -> Flow:
        """The prior, with batch shape ``()``."""
        check_choice("flow", self.flow, FLOWS)
        check_at_least("num_flows", self.num_flows, 1)
        D, layers = self.latent_dim, []
        for i in range(self.num_flows):
            if self.flow == "coupling":
                kept = (D + 1 - i % 2) // 2  # in turns, or the middle stays as it is
                kernels = affine_parameters(self, f"flow_{i}", kept, D - kept)
                layers.append(AffineCoupling(*kernels))
            else:
                kernels = affine_parameters(self, f"flow_{i}", D, D)
                layers.append(Inverse(Autoregressive(*kernels)))  # type: ignore[arg-type]
        zeros = jnp.zeros(D, jnp.float32)
        return Flow(Normal(zeros, zeros, event_ndim=1), tuple(layers))


class ConditionalNormal(nn.Module):
    """p(z|c) = N(mean(c), diag(exp(log_var(c)))), learned; initially N(0, I).

    Source: Sohn, Lee and Yan, "Learning Structured Output Representation using Deep
    Conditional Generative Models", NIPS 2015.
    """

    takes_condition: ClassVar[bool] = True
    is_standard: ClassVar[bool] = False

    latent_dim: int  # D

    @nn.compact
    def __call__(self, condition: jax.Array) -> Normal:
        """The prior of each condition ``(B, E)``, batch shape ``(B,)``."""
        zeros = nn.initializers.zeros_init()
        dense = nn.Dense(2 * self.latent_dim, kernel_init=zeros, name="moments")
        mean, raw = jnp.split(dense(condition), 2, axis=-1)  # (B, D) each
        return Normal(mean, soft_bound(raw, *LOG_VAR_BOUNDS), event_ndim=1)


Prior = Literal["normal", "mixture", "vamp", "flow", "conditional"]
PRIORS: dict[Prior, type[nn.Module]] = {
    "normal": StandardNormal,
    "mixture": MixturePrior,
    "vamp": VampPrior,
    "flow": FlowPrior,
    "conditional": ConditionalNormal,
}
