"""Models with levels: what trains them, and what a trained one computes."""

import numpy as np
import pytest

from flaxvae import objectives
from flaxvae.checks import InputError
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.nn.priors import TopVampPrior
from flaxvae.training import fit

LABELLED = {"x": np.zeros((4, 4, 4, 1), np.float32), "labels": np.arange(4)}
REFUSED = {
    "tcvae": objectives.TCVAE(),
    "dip": objectives.DIPVAE(),
    "factor": objectives.FactorVAE(),
    "info": objectives.InfoVAE(),
    "wae": objectives.WAE(),
    "reconstruction": objectives.Reconstruction(),
    "quantization": objectives.Quantization(),
    "autoregressive": objectives.Autoregressive(),
    "classification": objectives.Classification(),
    "m2": objectives.M2(**LABELLED),
}


def build(inference="ladder", top=None):
    network = MLPLevels(
        output_shape=(4, 4, 1),
        latent_dims=(2, 3),
        hidden=(8,),
        level_hidden=(6,),
        inference=inference,
        activation="tanh",
    )
    return HierarchicalVAE(network, top or StandardNormal(2), BernoulliHead())


@pytest.mark.parametrize("name", REFUSED)
def test_objectives_of_one_level_are_refused_by_name(name, stripes):
    rule = f"one level of latent variables for the objective {name}, got Hierarchical"
    with pytest.raises(InputError, match=rule):
        fit(build(), stripes, objective=REFUSED[name], epochs=1, progress=False)


def test_objectives_see_the_levels_of_a_model_of_the_users_own(key):
    class Wrapped:
        def encode(self, x):
            return inner.encode(x)

        def decode(self, z):
            return inner.decode(z)

        def prior(self):
            return inner.prior()

        def critic(self, z):
            return z

    x = np.zeros((4, 4, 4, 1), np.float32)
    vae = build()
    variables = vae.init(key, x, key=key, method=objectives.ELBO())
    inner = vae.bind(variables)
    for name in ("tcvae", "dip", "factor", "info", "wae", "reconstruction"):
        objective = REFUSED[name]
        if name == "tcvae":
            objective = objectives.TCVAE(num_examples=9)
        with pytest.raises(InputError, match=f"objective {name}, got LevelPosterior"):
            objective(Wrapped(), x, key=key)


def test_pseudo_inputs_start_as_examples(stripes):
    vae = build("top_down", TopVampPrior(data_shape=(4, 4, 1), num_components=5))
    run = fit(
        vae, stripes, epochs=1, learning_rate=1e-12, batch_size=50, progress=False
    )
    found = np.asarray(run.variables["params"]["top"]["pseudo_inputs"])
    examples = np.asarray(stripes.train.x, np.float32) / 255
    nearest = np.abs(found[:, None] - examples[None]).max((2, 3, 4)).min(1)
    assert nearest.max() < 1e-5
    assert len(np.unique(found.reshape(5, -1), axis=0)) == 5
