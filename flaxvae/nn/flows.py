"""Posteriors and priors by flows: modules that make the layers of a `Flow`."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from flaxvae.checks import check_at_least, check_choice
from flaxvae.distributions import Normal
from flaxvae.distributions.flows import (
    AffineCoupling,
    Autoregressive,
    Flow,
    Inverse,
    Planar,
    Radial,
)
from flaxvae.nn.heads import DiagonalNormalHead

FLOWS = ("coupling", "autoregressive")


class IAFHead(nn.Module):
    """Features ``(B, F)`` -> inverse-autoregressive layers on a diagonal normal.

    The features move the hidden units of each layer. Each layer begins as the
    identity, so that training begins at the diagonal posterior. Draws cost a pass of
    the layers, the density of any other z costs D.

    Source: Kingma et al., "Improving Variational Inference with Inverse Autoregressive
    Flow", 2016, arXiv 1606.04934.
    """

    latent_dim: int  # D
    num_flows: int = 2
    width: int = 128  # H, hidden units of a layer

    @nn.compact
    def __call__(self, features: jax.Array) -> Flow:
        """q(z|x) from the features of x."""
        check_at_least("num_flows", self.num_flows, 1)
        layers = []
        for i in range(self.num_flows):
            kernel_in, bias, *rest = _affine(
                self, f"flow_{i}", self.latent_dim, self.latent_dim
            )
            context = nn.Dense(self.width, use_bias=False, name=f"context_{i}")
            moved = context(features)
            moved = moved + jnp.broadcast_to(bias, moved.shape)
            layers.append(Autoregressive(kernel_in, moved, *rest))
        return Flow(_base(self.latent_dim, features), tuple(layers))


class PlanarHead(nn.Module):
    """Features ``(B, F)`` -> planar layers on a diagonal normal, each example its own.

    Source: Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015,
    arXiv 1505.05770.
    """

    latent_dim: int  # D
    num_flows: int = 10

    @nn.compact
    def __call__(self, features: jax.Array) -> Flow:
        """q(z|x) from the features of x."""
        check_at_least("num_flows", self.num_flows, 1)
        D = self.latent_dim
        layers = []
        for i in range(self.num_flows):
            raw = _small(2 * D + 1, f"flow_{i}")(features)
            w, u, b = jnp.split(raw, [D, 2 * D], axis=-1)
            layers.append(Planar(w, u, b))
        return Flow(_base(D, features), tuple(layers))


class RadialHead(nn.Module):
    """Features ``(B, F)`` -> radial layers on a diagonal normal, each example its own.

    Source: Rezende and Mohamed, "Variational Inference with Normalizing Flows", 2015,
    arXiv 1505.05770.
    """

    latent_dim: int  # D
    num_flows: int = 10

    @nn.compact
    def __call__(self, features: jax.Array) -> Flow:
        """q(z|x) from the features of x."""
        check_at_least("num_flows", self.num_flows, 1)
        D = self.latent_dim
        layers = []
        for i in range(self.num_flows):
            raw = _small(D + 2, f"flow_{i}")(features)
            center, log_alpha, raw_beta = jnp.split(raw, [D, D + 1], axis=-1)
            layers.append(Radial(center, log_alpha, raw_beta))
        return Flow(_base(D, features), tuple(layers))


class FlowPrior(nn.Module):
    """A learned p(z): layers on N(0, I), which they begin as.

    ``"coupling"``: as fast both ways; ``"autoregressive"``: more flexible, densities in
    one pass, draws in D (a masked autoregressive flow).

    Source: Dinh, Sohl-Dickstein and Bengio, "Density estimation using Real NVP", 2016,
    arXiv 1605.08803; Papamakarios, Pavlakou and Murray, "Masked Autoregressive Flow for
    Density Estimation", 2017, arXiv 1705.07057; as a prior: Chen et al., "Variational
    Lossy Autoencoder", 2016, arXiv 1611.02731.
    """

    latent_dim: int  # D
    flow: str = "coupling"  # one of FLOWS
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
                kept = (D + 1) // 2
                kernels = _affine(self, f"flow_{i}", kept, D - kept)
                layers.append(AffineCoupling(*kernels))
            else:
                kernels = _affine(self, f"flow_{i}", D, D)
                layers.append(Inverse(Autoregressive(*kernels)))  # type: ignore[arg-type]
        zeros = jnp.zeros(D)
        return Flow(Normal(zeros, zeros, event_ndim=1), tuple(layers))


def _base(latent_dim: int, features: jax.Array) -> Normal:
    return DiagonalNormalHead(latent_dim, name="base")(features)


def _affine(module: Any, name: str, inputs: int, outputs: int) -> tuple[jax.Array, ...]:
    """Parameters of a network with one hidden layer that gives zeros at first."""
    zeros = nn.initializers.zeros_init()
    normal = nn.initializers.lecun_normal()
    H = module.width
    return (
        module.param(f"{name}_kernel_in", normal, (inputs, H)),
        module.param(f"{name}_bias_in", zeros, (H,)),
        module.param(f"{name}_kernel_out", zeros, (H, 2 * outputs)),
        module.param(f"{name}_bias_out", zeros, (2 * outputs,)),
    )


def _small(width: int, name: str) -> nn.Dense:
    """A dense layer whose output is near zero at first, yet not equal in all units."""
    return nn.Dense(width, kernel_init=nn.initializers.normal(0.01), name=name)
