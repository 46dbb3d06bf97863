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
SAMPLED = (
    ELBO(kl="sampled", num_samples=K),
    IWAE(num_samples=K),
    IWAE(num_samples=K, estimator="stl"),
    IWAE(num_samples=K, estimator="dreg"),
)
OBJECTIVES = (
    ELBO(beta=0.7),
    ELBO(num_samples=K, capacity=3.0),
    *SAMPLED,
    MIWAE(num_samples=K, num_means=2, estimator="dreg"),
    PIWAE(num_samples=K, num_means=2),
    CIWAE(num_samples=K, mixing=0.3),
)
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
def terms_and_gradients(vae, variables, objectives, key):
    """Of each objective, by one program."""

    def loss(params, objective):
        terms = vae.apply({"params": params}, X, key=key, method=objective)
        return terms["loss"].mean(), terms

    compute = functools.partial(jax.grad(loss, has_aux=True), variables["params"])
    return [compute(objective) for objective in objectives]


def assert_close(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-5)


@pytest.fixture(scope="module")
def one_level():
    """Gradients and terms of each objective, and those of the `VAE`."""
    variables = random_like(NORMAL)
    network = {"params": {"network": as_level(variables["params"], 0)}}
    key = jax.random.key(2)
    own = jax.random.fold_in(key, 0)  # of level 0
    found = terms_and_gradients(build((D,)), network, OBJECTIVES, key)
    expected = terms_and_gradients(NORMAL, variables, OBJECTIVES, own)
    return jax.device_get((found, expected))


@pytest.mark.parametrize("index", range(len(OBJECTIVES)), ids=map(repr, OBJECTIVES))
def test_a_model_of_one_level_is_a_vae(one_level, index):
    (gradients, terms), (slopes, expected) = (each[index] for each in one_level)
    assert_close(terms, expected)
    assert_close(gradients["network"], as_level(slopes, 0))
    assert min(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients)) > 1e-3


@pytest.mark.parametrize("inference", ["bottom_up", "ladder"])
def test_a_top_level_that_decides_nothing_changes_nothing(inference, key):
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
    # The estimators of the ladder's gradients are compared in test_levels.py.
    objectives = SAMPLED if inference == "bottom_up" else SAMPLED[:2]
    found = terms_and_gradients(vae, {"params": {"network": network}}, objectives, key)
    own = jax.random.fold_in(key, 1)
    of_vae = terms_and_gradients(NORMAL, variables, OBJECTIVES, own)
    for objective, of_levels in zip(objectives, found, strict=True):
        of_one = of_vae[OBJECTIVES.index(objective)]
        (gradients, terms), (slopes, expected) = of_levels, of_one
        assert_close(terms, expected)
        for part in ("decoder", "output"):
            assert_close(gradients["network"][part], as_level(slopes, 1)[part])
        if inference == "bottom_up" and isinstance(objective, IWAE):
            for part in ("up_1", "heads_1"):
                assert_close(gradients["network"][part], as_level(slopes, 1)[part])
