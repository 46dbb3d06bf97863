"""Models from settings: what depends on the data, and what is refused."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import Dataset, Preprocessing, Split, condition_on_labels
from flaxvae.distributions import Normal
from flaxvae.models import (
    PRESETS,
    AutoencoderConfig,
    CodePriorConfig,
    HierarchicalConfig,
    VAEConfig,
    VQVAEConfig,
    build_vae,
)
from flaxvae.models.autoencoder import UNIT_ERROR
from flaxvae.models.data_spec import DataSpec
from flaxvae.models.presets import LEVEL_PRESETS
from flaxvae.models.variables import variable_shapes
from flaxvae.models.vqvae import PIXEL_SCALE
from flaxvae.nn import MixturePrior
from flaxvae.nn.posteriors import POSTERIORS, FullNormalHead
from flaxvae.nn.priors import PRIORS

IMAGES, ROWS = DataSpec((8, 8, 1)), DataSpec((5,))


class Identity(nn.Module):
    """A network of the user's own."""

    def __call__(self, x):
        return x.reshape(len(x), -1)


def test_the_likelihood_and_its_levels_are_those_of_the_data(stripes):
    assert type(VAEConfig().build(stripes).likelihood).__name__ == "BernoulliHead"
    config = VAEConfig(likelihood="categorical")
    assert config.build(stripes).likelihood.levels == 256
    config = dataclasses.replace(config, levels=5)
    assert config.build(stripes).likelihood.levels == 5
    x = np.zeros((4, 3), np.float32)
    table = Dataset("table", Split(x), Split(x), Split(x))
    assert type(VAEConfig().build(table).likelihood).__name__ == "NormalHead"
    assert VAEConfig(prior="vamp").build(table).prior.bounded is False
    assert VAEConfig(prior="vamp").build(stripes).prior.data_shape == stripes.shape


@pytest.mark.parametrize("conditioning", [None, "concat", "embedding", "film"])
def test_conditions_are_classes_or_vectors_as_in_the_data(stripes, conditioning):
    config = VAEConfig(conditional=True, conditioning=conditioning)
    condition = config.build(condition_on_labels(stripes)).condition
    assert (condition.num_classes, condition.width) == (8, None)
    assert config.build(stripes).condition == condition
    assert (condition.size is None) == (conditioning in (None, "concat"))
    vectors = np.eye(8, dtype=np.float32)[stripes.train.labels]
    split = dataclasses.replace(stripes.train, condition=vectors)
    data = dataclasses.replace(stripes, train=split, validation=split, test=split)
    condition = config.build(data).condition
    assert (condition.num_classes, condition.width) == (None, 8)
    assert config.build(data).encoder.film == (conditioning == "film")
    vamp = dataclasses.replace(config, prior="vamp")
    with pytest.raises(InputError, match="must not be vamp where conditions are vec"):
        vamp.build(data)
    with pytest.raises(InputError, match="num_classes or condition_width"):
        config.build(IMAGES)


@pytest.mark.parametrize(
    ("config", "shape", "text"),
    [
        (VAEConfig(), (8, 8, 1), "64-256-256-2"),
        (VAEConfig(hidden=(), latent_dim=3), (8, 8, 1), "64-3"),
        (VAEConfig(hidden=(400,), latent_dim=20), (28, 28, 1), "784-400-20"),
        (VAEConfig(encoder="conv"), (8, 8, 1), "conv 32-64, z 2"),
        (
            VAEConfig(encoder="conv", decoder="resnet", filters=(8,), hidden=(16,)),
            (8, 8, 1),
            "conv and resnet 8-16, z 2",
        ),
        (
            VAEConfig(hidden=(9, 8), decoder_hidden=(7,)),
            (8, 8, 1),
            "64-9-8-2-7-64",
        ),
        (
            AutoencoderConfig(encoder="conv", filters=(8, 4), feature_map="linear"),
            (28, 28, 1),
            "conv 8-4, z 196",
        ),
        (AutoencoderConfig(), (28, 28, 1), "784-256-128-64-32"),
        (AutoencoderConfig(hidden=()), (28, 28, 1), "784-32"),
        (AutoencoderConfig(encoder="conv"), (28, 28, 1), "conv 32-64, z 64"),
        (VQVAEConfig(quantizer="fsq"), (28, 28, 1), "resnet, fsq"),
    ],
)
def test_a_network_is_described_by_its_resolved_widths(config, shape, text):
    assert config.describe_network(shape) == text


def test_the_decoder_may_differ_from_the_mirror():
    config = VAEConfig(
        encoder="conv",
        filters=(4, 8),
        hidden=(9, 7),
        kernel_size=5,
        padding=1,
        activation="silu",
        decoder_filters=(6, 5, 4),
        decoder_hidden=3,
        decoder_kernel_size=(4, 4, 3),
        decoder_strides=(2, 2, 1),
        decoder_activation="relu",
    )
    model = config.build(IMAGES)
    assert (model.encoder.filters, model.encoder.hidden) == ((4, 8), (9, 7))
    decoder = model.decoder
    assert (decoder.filters, decoder.hidden) == ((6, 5, 4), (3,))
    assert (decoder.kernel_size, decoder.strides) == ((4, 4, 3), (2, 2, 1))
    assert (decoder.activation, decoder.padding) == ("relu", 1)
    decoded = variable_shapes(model, IMAGES.shape)["params"]["decoder"]
    assert decoded["output"]["kernel"].shape == (3, 3, 4, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_norm": "torch"}, "batch_norm must be left out without batch normal"),
        (
            {"encoder": "conv", "dense_normalization": "none"},
            "dense_normalization must be left out without dense layers",
        ),
        (
            {"encoder": "conv", "before_reshape": "normalization"},
            "before_reshape must be activation or none without normalization",
        ),
        ({"before_reshape": "activation"}, "before_reshape must be left out for this"),
        ({"decoder_filters": (3,)}, "decoder_filters must be left out for this model"),
        ({"biases": "always"}, "biases must be left out without batch normalization"),
        (
            {"decoder_biases": "dense", "normalization": "layer"},
            "decoder_biases must be left out without batch normalization, got dense",
        ),
        (
            {"biases": "some"},
            "unknown biases 'some': choose from always, dense, needed",
        ),
    ],
)
def test_settings_without_effect_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        VAEConfig(**settings).build(IMAGES)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "feature_map must be left out unless encoder and decoder are conv"),
        ({"encoder": "conv", "latent_dim": 3}, "latent_dim must be left out where"),
        ({"encoder": "conv", "hidden": 3}, "hidden must be left out where the code"),
        ({"encoder": "conv", "kind": "sparse"}, "kind must not be sparse where"),
    ],
)
def test_a_feature_map_is_the_code_of_convolutions_alone(settings, message):
    with pytest.raises(InputError, match=message):
        AutoencoderConfig(feature_map="linear", **settings)


def test_an_autoencoders_defaults_depend_on_its_kind_and_data():
    plain = AutoencoderConfig().build(IMAGES)
    assert plain.encoder.hidden == (256, 128, 64)
    assert plain.decoder.hidden == (64, 128, 256)
    assert plain.code.latent_dim == 32
    head = plain.likelihood
    assert (head.scale, head.init_scale) == ("fixed", UNIT_ERROR)
    assert head.mean_activation == "sigmoid"
    assert AutoencoderConfig().build(ROWS).likelihood.mean_activation == "none"
    sparse = AutoencoderConfig(kind="sparse").build(IMAGES)
    assert (sparse.code.latent_dim, sparse.code.activation) == (256, "relu")
    rate = AutoencoderConfig(kind="sparse", penalty="rate").build(IMAGES)
    assert rate.code.activation == "sigmoid"
    conv = AutoencoderConfig(encoder="conv").build(IMAGES)
    assert (conv.code.latent_dim, conv.encoder.normalization) == (64, "batch")
    bare = AutoencoderConfig(encoder="conv", normalization="none").build(IMAGES)
    assert bare.encoder.normalization == "none"
    shared = AutoencoderConfig(scale="shared", init_scale=0.3).build(IMAGES).likelihood
    assert (shared.scale, shared.init_scale) == ("shared", 0.3)
    laplace = AutoencoderConfig(likelihood="laplace").build(IMAGES).likelihood
    assert (laplace.scale, laplace.init_scale) == ("shared", 1.0)


@pytest.mark.parametrize(
    "config",
    [
        AutoencoderConfig(kind="denoising", activation="silu"),
        AutoencoderConfig(encoder="conv", filters=(4,), scale="shared"),
        AutoencoderConfig(decoder_hidden=(9,), code_activation="tanh"),
        AutoencoderConfig(likelihood="normal", scale="learned", dropout=0.1),
    ],
)
def test_the_vae_of_an_autoencoder_has_its_networks(config):
    model, vae = config.build(IMAGES), config.as_vae().build(IMAGES)
    assert vae.encoder == model.encoder
    assert vae.posterior.latent_dim == config.code_size
    if config.likelihood is None:
        assert type(vae.likelihood).__name__ == "BernoulliHead"
        assert vae.decoder == model.decoder
    else:
        assert vae.likelihood.scale == "learned"


def test_a_vqvaes_defaults():
    model = VQVAEConfig().build(IMAGES)
    assert (model.quantizer.num_codes, model.quantizer.decay) == (512, 0.99)
    assert (model.likelihood.scale, model.likelihood.init_scale) == (
        "fixed",
        PIXEL_SCALE,
    )
    assert model.encoder.grid and model.decoder.grid
    config = VQVAEConfig(codebook="gradient", distance="cosine", code_width=3)
    quantizer = config.build(IMAGES).quantizer
    assert (quantizer.decay, quantizer.distance, quantizer.width) == (None, "cosine", 3)
    fsq = VQVAEConfig(quantizer="fsq", fsq_levels=(3, 4)).build(IMAGES).quantizer
    assert fsq.num_codes == 12
    logistic = VQVAEConfig(likelihood="discretized_logistic")
    assert logistic.build(DataSpec((8, 8, 1), levels=17)).likelihood.levels == 17
    with pytest.raises(InputError, match="dataset must hold images"):
        VQVAEConfig().build(ROWS)


def test_modules_of_ones_own_take_the_place_of_names(stripes):
    prior, posterior = MixturePrior(3, 4), FullNormalHead(3)
    config = VAEConfig(latent_dim=3, hidden=(8,))
    model = config.build(stripes, encoder=Identity(), prior=prior, posterior=posterior)
    assert (model.encoder, model.prior) == (Identity(), prior)
    assert model.posterior == posterior
    assert model.decoder.hidden == (8,)
    assert build_vae((4, 4, 1), 3, prior=prior).prior == prior
    for refused in (
        lambda: config.build(stripes, encoder=Identity(), decoder=Identity()),
        lambda: build_vae(
            (4, 4, 1), encoder=Identity(), decoder=Identity(), hidden=(8,)
        ),
    ):
        with pytest.raises(InputError, match="hidden must be left out for this model"):
            refused()
    flow = VAEConfig(prior="flow", prior_flows=3)
    with pytest.raises(InputError, match="must be left out for the prior Mixture"):
        flow.build(stripes, prior=prior)


def test_a_setting_of_one_default_likelihood_is_refused_by_the_other():
    config = VAEConfig(scale="fixed")  # of the normal likelihood of tables
    assert config.build(ROWS).likelihood.scale == "fixed"
    with pytest.raises(InputError, match="scale must be left out for this model"):
        config.build(IMAGES)


def test_lists_and_arrays_become_tuples():
    config = VAEConfig(encoder="conv", filters=[4, 8], hidden=np.array([3, 5]))
    assert config == VAEConfig(encoder="conv", filters=(4, 8), hidden=(3, 5))
    assert isinstance(config.hidden[0], int)


@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("posterior", POSTERIORS)
def test_every_prior_and_posterior_is_built_by_its_name(prior, posterior):
    conditional = prior == "conditional"
    config = VAEConfig(
        latent_dim=3, prior=prior, posterior=posterior, conditional=conditional
    )
    model = config.build(DataSpec((4, 4, 1), num_classes=2))
    assert type(model.prior) is PRIORS[prior]
    assert type(model.posterior) is POSTERIORS[posterior]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_build_models(name):
    model = PRESETS[name].build(DataSpec((28, 28, 1)))
    shapes = variable_shapes(model, (28, 28, 1))
    D = PRESETS[name].latent_dim
    dense = shapes["params"]["posterior"]["mean_and_log_var"]
    assert dense["bias"].shape == (2 * D,)


@pytest.mark.parametrize("name", LEVEL_PRESETS)
def test_presets_build_models_with_levels(name):
    model = LEVEL_PRESETS[name].build(DataSpec((28, 28, 1)))
    shapes = jax.eval_shape(
        lambda x: model.init_with_output(jax.random.key(0), x, method="encode")[0].mean,
        jnp.zeros((1, 28, 28, 1)),
    )
    assert len(shapes.levels) == model.network.num_levels >= 2


def test_a_prior_over_codes_from_its_settings():
    def codes(condition):
        x = np.zeros((6, 2, 3, 1), np.uint16)
        split = Split(x, np.arange(6), condition=condition)
        return Dataset(
            "codes", split, split, split, preprocessing=Preprocessing(max_value=15.0)
        )

    config = CodePriorConfig(prior_width=16, prior_layers=2)
    prior = config.build(codes(None))
    assert (prior.num_codes, prior.columns, prior.num_classes) == (16, 3, None)
    assert (prior.width, prior.num_layers) == (16, 2)
    assert config.build(codes(np.arange(6))).num_classes == 6
    assert [config.choose_epochs(n) for n in (57_000, 10**6, 100)] == [6, 1, 12]
    assert CodePriorConfig(prior_epochs=3).choose_epochs(100) == 3


def test_heads_of_ones_own_need_no_entry_anywhere():
    class Shifted(nn.Module):
        def __call__(self, features):
            return Normal(features + 1.0, jnp.zeros_like(features), event_ndim=3)

    model = VAEConfig().build(IMAGES, likelihood=Shifted())
    assert model.decoder.output_shape == (8, 8, 1)


def test_a_data_set_needs_only_the_properties_that_a_model_reads():
    data = SimpleNamespace(
        shape=(6, 6, 1), levels=4, num_classes=3, train=SimpleNamespace(condition=None)
    )
    assert DataSpec.of(data) == DataSpec((6, 6, 1), 4, 3)


@pytest.mark.parametrize("config", [VAEConfig, HierarchicalConfig, VQVAEConfig])
def test_arrays_are_not_a_data_set(config):
    rule = "dataset must be a Dataset, got ndarray: use flaxvae.data.from_arrays"
    with pytest.raises(InputError, match=rule):
        config().build(np.zeros((4, 8, 8, 1)))
