"""Settings of VAEs with several levels: sizes of the networks, and what is refused."""

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import from_arrays
from flaxvae.models import HierarchicalConfig
from flaxvae.models.data_spec import DataSpec
from flaxvae.models.variables import variable_shapes
from flaxvae.nn import MixturePrior, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.nn.priors import TopVampPrior
from flaxvae.settings import describe_settings, settings_from_description

BURDA = {
    "latent_dims": (50, 100),
    "hidden": (200, 200),
    "level_hidden": (100, 100),
    "inference": "bottom_up",
    "activation": "tanh",
}
TOMCZAK = {
    "latent_dims": 40,
    "hidden": (300, 300),
    "level_hidden": (300, 300),
    "inference": "top_down",
    "activation": "glu",
    "decoder_skip": True,
    "prior": "vamp",
}
IMAGES = DataSpec((28, 28, 1))


def kernels(config):
    """Input and output widths of each dense layer."""
    shapes = variable_shapes(config.build(IMAGES), IMAGES.shape)["params"]["network"]
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        *names, last = (str(entry.key) for entry in path)
        if last == "kernel":
            found[".".join(names)] = leaf.shape
    return found


def test_the_two_layers_of_burda_et_al():
    """q: 784-200-200-100, 100-100-100-50; p: 50-100-100-100, 100-200-200-784."""
    layers = [(784, 200), (200, 200), (200, 2 * 100)]
    layers += [(100, 100), (100, 100), (100, 2 * 50)]
    layers += [(50, 100), (100, 100), (100, 2 * 100)]
    layers += [(100, 200), (200, 200), (200, 784)]
    found = kernels(HierarchicalConfig(**BURDA)).values()
    assert sorted(found) == sorted(layers)


def test_the_two_levels_of_tomczak_and_welling():
    config = HierarchicalConfig(**TOMCZAK)
    found = kernels(config)
    assert found["up_1.hidden_0"] == (784, 2 * 300)  # values and gates
    assert found["joined_0.hidden_0"] == (300 + 300, 2 * 300)
    assert found["decoder.hidden_0"] == (40 + 40, 2 * 300)
    assert found["heads_1.mean_and_log_var"] == (300, 2 * 40)
    top = config.build(IMAGES).top
    assert (type(top), top.num_components) == (TopVampPrior, 500)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, (32, 32)),
        ({"depth": 3}, (32, 32, 32)),
        ({"latent_dims": 5}, (5, 5)),
        ({"latent_dims": 5, "depth": 1}, (5,)),
        ({"latent_dims": (3, 4, 5)}, (3, 4, 5)),
        ({"latent_dims": (3, 4), "depth": 2}, (3, 4)),
    ],
)
def test_numbers_of_levels(settings, expected):
    model = HierarchicalConfig(**settings).build(IMAGES)
    assert model.network.latent_dims == expected
    assert model.top == StandardNormal(expected[0])


@pytest.mark.parametrize(
    ("settings", "shape", "expected"),
    [
        ({}, (28, 28, 1), [(2, 1, 1), (2, 4, 4), (2, 7, 7), (2, 14, 14)]),
        ({"depth": (1, 3)}, (5, 9, 2), [(1, 1, 1), (3, 3, 5)]),
        (
            {"groups": (1, 4, 8), "depth": 1},
            (8, 8, 1),
            [(1, 1, 1), (1, 4, 4), (1, 8, 8)],
        ),
        ({"groups": (3,)}, (9, 9, 1), [(2, 3, 3)]),
    ],
)
def test_grids_of_levels(settings, shape, expected):
    config = HierarchicalConfig(network="conv", width=8, **settings)
    model = config.build(DataSpec(shape))
    groups = zip(model.network.blocks, model.network.sizes, strict=True)
    assert [(count, *size) for count, size in groups] == expected
    h, w = expected[0][1:]
    assert model.top.latent_dim == h * w * 16
    shown = " + ".join(f"{count} x {h}x{w}" for count, h, w in expected)
    assert config.describe_network(shape) == f"conv 8, {shown}"


def test_parts_follow_the_data():
    row = HierarchicalConfig(depth=1, prior="mixture", prior_components=3)
    model = row.build(DataSpec((7,)))
    assert model.top == MixturePrior(32, 3)
    assert type(model.likelihood).__name__ == "NormalHead"
    levels = HierarchicalConfig(
        likelihood="discretized_logistic_mixture", num_components=2
    ).build(DataSpec((4, 4, 3), levels=16))
    assert levels.likelihood.levels == 16
    assert levels.network.output_shape == (4, 4, 20)  # 2 components of 10 numbers
    bounded = HierarchicalConfig(prior="vamp").build(DataSpec((7,))).top
    assert not bounded.bounded


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 2, "latent_dims": (1, 2, 3)}, "latent_dims must be one number or"),
        ({"depth": (1, 2)}, "depth must be one number unless network is conv, got 1 2"),
        ({"depth": 0}, "depth must be >= 1, got 0"),
        ({"latent_dims": ()}, "latent_dims must have a value, got none"),
        ({"depth": 1, "level_hidden": (3,)}, "level_hidden must be left out for a s"),
        ({"depth": 1, "inference": "top_down"}, "inference must be left out for a"),
        ({"depth": 1, "decoder_skip": True}, "decoder_skip must be left out f"),
        (
            {"inference": "bottom_up", "prior": "vamp"},
            "inference must be top_down or ladder for the prior vamp",
        ),
        (
            {"hidden": (), "level_hidden": (), "activation": "tanh"},
            "activation must be left out without layers",
        ),
        ({"normalization": "batch"}, "unknown normalization 'batch': choose from"),
        ({"prior": "conditional"}, "unknown prior 'conditional': choose from"),
        ({"prior_components": 3}, "prior_components must be left out for the prior n"),
        (
            {"likelihood": "bernoulli", "scale": "fixed"},
            "scale must be left out for this model, got fixed: it is",
        ),
        ({"groups": (1, 4)}, "groups must be left out unless network is conv, got 1 4"),
        ({"network": "conv", "hidden": (3,)}, "hidden must be left out unless network"),
        ({"network": "conv", "activation": "glu"}, "activation must not be glu unless"),
    ],
)
def test_settings_of_levels_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        HierarchicalConfig(**settings)


@pytest.mark.parametrize(
    ("settings", "shape", "message"),
    [
        ({}, (7,), "network must be mlp for rows and series, which are not images"),
        ({"depth": (1, 2)}, (8, 8, 1), None),
        ({"depth": (1, 2, 3)}, (8, 8, 1), "depth must be one number for each of 2 g"),
        ({"width": (8, 8, 8)}, (8, 8, 1), "width must be one number for each of 2 g"),
        ({"groups": (4, 1)}, (8, 8, 1), "groups must rise from the coarsest grid"),
        ({"groups": (16,)}, (8, 8, 1), "grids must be sizes of the next grid divided"),
        ({"groups": (3,)}, (8, 6, 1), "groups must be among 1, 4, 8 for images of 8 x"),
    ],
)
def test_what_does_not_suit_the_data_is_refused(settings, shape, message):
    config = HierarchicalConfig(network="conv", **settings)
    if message is None:
        config.build(DataSpec(shape))
        return
    with pytest.raises(InputError, match=message):
        config.build(DataSpec(shape))


def test_no_layer_of_levels_keeps_statistics_or_draws():
    """The passes are pure functions, which have nowhere to put them."""
    x = np.zeros((2, 4), np.float32)
    for field, value in (("normalization", "batch"), ("dropout", 0.1)):
        network = MLPLevels(output_shape=(4,), latent_dims=(2, 2), **{field: value})
        with pytest.raises(InputError, match=f"{field} must be .*network of levels"):
            network.init(jax.random.key(0), x, method="bottom_up")


def test_settings_return_from_json():
    for settings in (BURDA, TOMCZAK, {"network": "conv", "depth": (1, 2)}):
        config = HierarchicalConfig(**settings)
        described = describe_settings(config)
        assert settings_from_description(HierarchicalConfig, described) == config


def test_conditions_are_refused():
    x = np.random.default_rng(0).uniform(size=(30, 4)).astype(np.float32)
    data = from_arrays(x, conditions=np.arange(30) % 3)
    model = HierarchicalConfig(hidden=(3,)).build(data)
    message = "condition must be left out for the model HierarchicalVAE"
    with pytest.raises(InputError, match=message):
        flaxvae.fit(model, data, epochs=1)
