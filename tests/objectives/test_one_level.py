"""Models with levels that are a `VAE`: of one level, and of two without use of the top.

Under the same noise they have the same bounds and the same gradients.
"""

import functools

import jax
import numpy as np
import pytest

from flaxvae.models import build_vae
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.objectives import CIWAE, ELBO, IWAE, MIWAE, PIWAE

SHAPE, D, H = (4, 4, 1), 3, 8
B = K = 4  # equal, so that axes in the wrong place show in the numbers alone
X = np.random.default_rng(0).random((B, *SHAPE)).astype(np.float32)
OBJECTIVES = [
    ELBO(beta=0.7),
    ELBO(kl="sampled", num_samples=K),
    ELBO(num_samples=K, capacity=3.0),
    IWAE(num_samples=K),
    IWAE(num_samples=K, estimator="stl"),
    IWAE(num_samples=K, estimator="dreg"),
    MIWAE(num_samples=K, num_means=2, estimator="dreg"),
    PIWAE(num_samples=K, num_means=2),
    CIWAE(num_samples=K, mixing=0.3),
]
NORMAL = build_vae(SHAPE, latent_dim=D, hidden=(H,), activation="tanh")


def build(latent_dims, inference="top_down"):
    network = MLPLevels(
        output_shape=SHAPE,
        latent_dims=latent_dims,
        hidden=(H,),
        level_hidden=(5,),
        inference=inference,
        activation="tanh",
    )
    return HierarchicalVAE(network, StandardNormal(latent_dims[0]), BernoulliHead())


@functools.cache
def random_like(vae):
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda: vae.init(key, X, key=key, method=ELBO()))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(
        tree, [0.4 * rng.normal(size=leaf.shape).astype("f4") for leaf in leaves]
    )


def as_level(params, level):
    """The parameters of a `VAE` by the names that a network of levels has for them."""
    decoder = dict(params["decoder"])
    output = decoder.pop("output")
    return {
        f"up_{level}": params["encoder"],
        f"heads_{level}": params["posterior"],
        "decoder": decoder,
        "output": output,
    }


@functools.partial(jax.jit, static_argnums=(0, 2))
def terms_and_gradients(vae, variables, objective, key):
    def loss(params):
        terms = vae.apply({"params": params}, X, key=key, method=objective)
        return terms["loss"].mean(), terms

    gradients, terms = jax.grad(loss, has_aux=True)(variables["params"])
    return terms, gradients


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_a_model_of_one_level_is_a_vae(objective, key):
    variables = random_like(NORMAL)
    network = as_level(variables["params"], 0)
    terms, gradients = terms_and_gradients(
        build((D,)), {"params": {"network": network}}, objective, key
    )
    own = jax.random.fold_in(key, 0)  # of level 0
    expected, slopes = terms_and_gradients(NORMAL, variables, objective, own)
    assert_close(terms, expected)
    assert_close(gradients["network"], as_level(slopes, 0))
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 1e-3


@pytest.mark.parametrize("inference", ["bottom_up", "ladder"])
@pytest.mark.parametrize("objective", [OBJECTIVES[1], *OBJECTIVES[3:6]], ids=repr)
def test_a_top_level_that_decides_nothing_changes_nothing(objective, inference, key):
    """Its posterior is its prior, and the prior of the level below is N(0, I)."""
    vae = build((2, D), inference)
    network = dict(random_like(vae)["params"]["network"])
    for part in ("heads_0", "prior_heads_0"):
        network[part] = jax.tree.map(np.zeros_like, network[part])
    variables = random_like(NORMAL)
    network |= as_level(variables["params"], 1)
    if inference == "ladder":  # of equal moments: half the variance of q = N(0, I)
        zeros = jax.tree.map(np.zeros_like, network["heads_1"])
        network["heads_1"] = zeros
        head = jax.tree.map(np.zeros_like, variables["params"]["posterior"])
        bias = np.zeros(2 * D, "f4")
        bias[D:] = -np.log(2.0)
        head["mean_and_log_var"] = dict(head["mean_and_log_var"], bias=bias)
        variables = {"params": dict(variables["params"], posterior=head)}
    terms, gradients = terms_and_gradients(
        vae, {"params": {"network": network}}, objective, key
    )
    own = jax.random.fold_in(key, 1)
    expected, slopes = terms_and_gradients(NORMAL, variables, objective, own)
    assert_close(terms, expected)
    for part in ("decoder", "output"):
        assert_close(gradients["network"][part], as_level(slopes, 1)[part])
    if inference == "bottom_up" and objective.__class__ is IWAE:
        for part in ("up_1", "heads_1"):
            assert_close(gradients["network"][part], as_level(slopes, 1)[part])
