"""A linear-Gaussian model with two levels, whose log p(x) and posterior are exact.

z1 ~ N(0, I), z2 = A z1 + a + noise, x = W z2 + b + noise. A has one entry per column
and W orthogonal columns, so that every posterior of a level given the levels drawn
before it is diagonal: an `MLPLevels` without hidden layers has the exact one for some
of its parameters, in each order of inference.
"""

import functools
from dataclasses import dataclass

import numpy as np
from scipy import stats

from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import NormalHead, StandardNormal
from flaxvae.nn.levels import MLPLevels

INFERENCES = ("bottom_up", "top_down", "ladder")
A = np.array([[1.2, 0.0], [0.0, -0.7], [0.0, 0.0]])
SHIFT = np.array([0.3, -0.5, 0.8])  # a
VAR = np.array([0.5, 0.8, 1.1])  # of z2 given z1
W = np.array([[1, 1, 1], [1, -1, 1], [1, 1, -1], [1, -1, -1]]) * [0.5, 0.8, 0.3]
B = np.array([0.5, -1.0, 2.0, 0.0])
NOISE_VAR = 0.6
SIZES = (2, 3)  # dimensions of z1 and of z2

Affine = tuple[np.ndarray, np.ndarray, np.ndarray]  # matrix, offset, variances


def exact_heads(inference: str) -> dict[str, Affine]:
    """The heads of the exact posterior."""
    squares = (W**2).sum(0)  # W^T W is diagonal
    precision = squares / NOISE_VAR  # of x about z2
    read = W.T / squares[:, None]  # z2 as x says: read @ (x - B)
    if inference == "bottom_up":
        marginal = (A**2).sum(1) + VAR  # of z2 under the prior
        var = 1 / (1 / marginal + precision)
        low = (
            (var * precision)[:, None] * read,
            var * (SHIFT / marginal - precision * (read @ B)),
            var,
        )
        var = 1 / (1 + (A**2 / VAR[:, None]).sum(0))
        matrix = var[:, None] * (A / VAR[:, None]).T
        return {"heads_1": low, "heads_0": (matrix, -matrix @ SHIFT, var)}
    spread = VAR + 1 / precision  # of what x says about z2, given z1
    var = 1 / (1 + (A**2 / spread[:, None]).sum(0))
    matrix = var[:, None] * (A / spread[:, None]).T @ read
    top = (matrix, -matrix @ B - var * ((A / spread[:, None]).T @ SHIFT), var)
    if inference == "ladder":
        return {"heads_0": top, "heads_1": (read, -read @ B, 1 / precision)}
    var = 1 / (1 / VAR + precision)
    of_x, of_z1 = (var * precision)[:, None] * read, (var / VAR)[:, None] * A
    offset = var * (SHIFT / VAR - precision * (read @ B))
    return {"heads_0": top, "heads_1": (np.hstack([of_x, of_z1]), offset, var)}


def perturbed_heads(inference: str) -> dict[str, Affine]:
    """Heads near those of the exact posterior."""
    rng = np.random.default_rng(3)
    return {
        name: (
            matrix + 0.1 * rng.normal(size=matrix.shape),
            offset + 0.3 * rng.normal(size=offset.shape),
            var * np.exp(0.4 * rng.normal(size=var.shape)),
        )
        for name, (matrix, offset, var) in exact_heads(inference).items()
    }


@dataclass(frozen=True)
class LinearLevels:
    """The model, its parameters and what is known about it."""

    inference: str
    is_exact: bool

    @functools.cached_property
    def heads(self) -> dict[str, Affine]:
        make = exact_heads if self.is_exact else perturbed_heads
        return make(self.inference)

    @functools.cached_property
    def vae(self) -> HierarchicalVAE:
        network = MLPLevels(
            output_shape=(4,),
            latent_dims=SIZES,
            hidden=(),
            level_hidden=(),
            inference=self.inference,
        )
        likelihood = NormalHead(1, scale="fixed", init_scale=NOISE_VAR**0.5)
        return HierarchicalVAE(network, StandardNormal(2), likelihood)

    @functools.cached_property
    def variables(self):
        def dense(matrix, offset, *more):
            kernel = np.vstack([matrix, *(np.zeros_like(matrix) for _ in more)]).T
            bias = np.concatenate([offset, *map(np.log, more)])
            return {"kernel": kernel.astype("f4"), "bias": bias.astype("f4")}

        heads = self.heads | {"prior_heads_0": (A, SHIFT, VAR)}
        network = {k: {"mean_and_log_var": dense(*v)} for k, v in heads.items()}
        return {"params": {"network": network | {"output": dense(W, B)}}}

    def apply(self, method, *args, variables=None):
        """Calls ``method(vae, *args)``."""
        return self.vae.apply(variables or self.variables, *args, method=method)

    def joint(self, x):
        """Mean ``(5,)`` and covariance of q(z1, z2|x) of one x, in float64."""
        first, second = (0, 1) if self.inference != "bottom_up" else (1, 0)
        matrix, offset, var = self.heads[f"heads_{first}"]
        mean, cov = matrix @ x + offset, np.diag(var)
        matrix, offset, var = self.heads[f"heads_{second}"]
        if self.inference == "bottom_up":
            slope, shift = matrix, offset
        elif self.inference == "top_down":
            slope, shift = matrix[:, 4:], matrix[:, :4] @ x + offset
        else:
            of_x, of_prior = 1 / var, 1 / VAR
            var = 1 / (of_x + of_prior)
            slope = (var * of_prior)[:, None] * A
            shift = var * (of_x * (matrix @ x + offset) + of_prior * SHIFT)
        means = [mean, slope @ mean + shift]
        blocks = [
            [cov, cov @ slope.T],
            [slope @ cov, slope @ cov @ slope.T + np.diag(var)],
        ]
        if first == 1:
            means, blocks = means[::-1], [row[::-1] for row in blocks[::-1]]
        return np.concatenate(means), np.block(blocks)

    def gap(self, x):
        """KL(q(z|x) || p(z|x)) of each x ``(B, 4)``, exactly."""
        return np.array([normal_kl(*self.joint(row), *posterior(row)) for row in x])

    def kl(self, x):
        """KL(q(z|x) || p(z)) of each x ``(B, 4)``, exactly."""
        return np.array([normal_kl(*self.joint(row), *prior()) for row in x])


def prior():
    """Mean and covariance of p(z1, z2)."""
    cov = [[np.eye(2), A.T], [A, A @ A.T + np.diag(VAR)]]
    return np.concatenate([np.zeros(2), SHIFT]), np.block(cov)


def posterior(x):
    """Mean and covariance of p(z1, z2|x) of one x."""
    mean, cov = prior()
    weights = np.hstack([np.zeros((4, 2)), W])
    gain = cov @ weights.T @ np.linalg.inv(weights @ cov @ weights.T + noise())
    return mean + gain @ (x - weights @ mean - B), cov - gain @ weights @ cov


def noise():
    return NOISE_VAR * np.eye(4)


def log_evidence(x):
    """Log p(x) of each x ``(B, 4)``."""
    mean, cov = prior()
    mean, cov = W @ mean[2:] + B, W @ cov[2:, 2:] @ W.T + noise()
    return stats.multivariate_normal.logpdf(x, mean, cov)


def normal_kl(mean, cov, other_mean, other_cov):
    """KL(N(mean, cov) || N(other_mean, other_cov))."""
    precision, off = np.linalg.inv(other_cov), mean - other_mean
    log_ratio = np.linalg.slogdet(other_cov)[1] - np.linalg.slogdet(cov)[1]
    return 0.5 * (
        np.trace(precision @ cov) + off @ precision @ off - len(mean) + log_ratio
    )


def draw_examples(num, seed=0):
    """Examples of the model, float32 ``(num, 4)``."""
    rng = np.random.default_rng(seed)
    mean, cov = prior()
    z2 = rng.multivariate_normal(mean[2:], cov[2:, 2:], num)
    x = z2 @ W.T + B + NOISE_VAR**0.5 * rng.normal(size=(num, 4))
    return x.astype(np.float32)
