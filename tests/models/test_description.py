import json

import flax.linen as nn
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.models.description import (
    describe_module,
    module_from_description,
    own_modules,
)
from flaxvae.nn.likelihoods import LIKELIHOODS
from flaxvae.nn.networks import DECODERS, ENCODERS
from flaxvae.nn.posteriors import POSTERIORS
from flaxvae.nn.priors import PRIORS
from flaxvae.nn.quantizers import QUANTIZERS


class Foreign(nn.Module):
    width: int = 3

    def __call__(self, x):
        return x


def test_a_model_survives_json():
    vae = build_vae((28, 20, 3), 7, hidden=(30, 20), activation="silu")
    text = json.dumps(describe_module(vae))
    assert module_from_description(json.loads(text)) == vae


@pytest.mark.parametrize("encoder", ENCODERS)
def test_descriptions_without_later_fields_mean_the_same(encoder):
    vae = build_vae((28, 20, 3), 7, encoder=encoder, normalization="batch")
    later = ("batch_norm", "biases", "dense_normalization", "before_reshape")
    described = describe_module(vae)
    for part in ("encoder", "decoder"):
        for name in (*later, "feature_map"):  # None, as a name that is not there
            assert described[part].pop(name, None) is None
    assert module_from_description(described) == vae


def test_every_module_that_can_be_chosen_is_found_by_its_name():
    modules = own_modules()
    tables = (ENCODERS, DECODERS, LIKELIHOODS, POSTERIORS, PRIORS, QUANTIZERS)
    for table in tables:
        for kind in table.values():
            assert modules[kind.__name__] is kind
    for name in ("VAE", "Autoencoder", "VQVAE", "CodePrior", "Classifier", "Critic"):
        assert name in modules
    assert "Foreign" not in modules and "LayerNorm" not in modules


@hypothesis_settings(deadline=None, max_examples=50)
@given(
    encoder=st.sampled_from(list(ENCODERS)),
    hidden=st.none() | st.lists(st.integers(1, 9), max_size=3),
    filters=st.none() | st.lists(st.integers(1, 9), min_size=1, max_size=3),
    likelihood=st.sampled_from([name for name in LIKELIHOODS if name != "mixed"]),
    prior=st.sampled_from([name for name in PRIORS if name != "conditional"]),
    posterior=st.sampled_from(list(POSTERIORS)),
    dropout=st.floats(0, 0.9),
)
def test_any_settings_survive_json(encoder, filters, **settings):
    if encoder != "mlp":
        settings["filters"] = filters
    elif settings["hidden"] == []:  # a linear network has no layer for dropout
        settings["dropout"] = 0.0
    vae = build_vae((8, 6, 1), 2, encoder=encoder, **settings)
    text = json.dumps(describe_module(vae))
    assert module_from_description(json.loads(text)) == vae


def test_a_foreign_module_is_named_and_refused():
    vae = build_vae((4, 4, 1), 2, encoder=Foreign())
    description = describe_module(vae)
    assert description["encoder"]["module"].endswith("test_description.Foreign")
    assert description["encoder"]["width"] == 3
    with pytest.raises(InputError, match=r"test_description.Foreign.*load\(workdir"):
        module_from_description(description)


def test_a_function_in_a_field_is_described_without_an_address():
    class Holder(nn.Module):
        function: object

    description = describe_module(Holder(function=nn.relu))
    assert "0x" not in json.dumps(description)
    assert "relu" in json.dumps(description)
