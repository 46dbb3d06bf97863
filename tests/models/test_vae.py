import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
from flaxvae.nn import MLPEncoder
from flaxvae.nn.likelihoods import MixedHead
from flaxvae.objectives import ELBO
from flaxvae.training.optimizers import adam
from flaxvae.training.state import count_parameters, create_state


@pytest.mark.parametrize(
    ("hidden", "latent_dim", "parameters"),
    [
        ((256,), 2, 404_244),
        ((400,), 2, 631_188),
        ((400,), 20, 652_824),
        ((256, 256), 20, 549_688),
    ],
)
def test_parameter_counts(hidden, latent_dim, parameters):
    """784 h + h + 2 (h D + D) + D h + h + 784 h + 784, and likewise for more layers."""
    vae = build_vae((28, 28, 1), latent_dim, hidden=hidden)
    x = jnp.zeros((1, 28, 28, 1))
    variables = jax.eval_shape(
        lambda k: vae.init(k, x, key=k, method=ELBO()), jax.random.key(0)
    )
    assert count_parameters(variables["params"]) == parameters


def test_encode_decode_prior_are_distributions(key):
    vae = build_vae((4, 4, 1), 3, hidden=(8,))
    x = jnp.zeros((5, 4, 4, 1))

    def parts(vae):
        return vae.encode(x), vae.decode(jnp.zeros((2, 5, 3))), vae.prior()

    init = functools.partial(vae.init_with_output, method=parts)
    (q, p, prior), _ = jax.eval_shape(init, key)
    assert q.mean.shape == q.log_var.shape == (5, 3)
    assert p.logits.shape == (2, 5, 4, 4, 1)
    assert prior.mean.shape == (3,)


def test_the_decoder_mirrors_the_encoder(key):
    vae = build_vae((4, 4, 1), 2, hidden=(8, 6), activation="tanh")
    assert vae.encoder.hidden == (8, 6)
    assert vae.decoder.hidden == (6, 8)
    assert vae.encoder.activation == vae.decoder.activation == "tanh"


class Flat(nn.Module):
    """A decoder that forgets the shape of the images."""

    @nn.compact
    def __call__(self, z):
        return nn.Dense(48)(z).reshape(-1, 4, 4, 3)


def test_a_decoder_of_another_shape_is_refused_at_trace_time():
    vae = build_vae((4, 4, 1), 2, decoder=Flat())
    with pytest.raises(InputError, match=r"\(4, 4, 1\), got \(4, 4, 3\)"):
        create_state(vae, ELBO(), adam(), jnp.zeros((2, 4, 4, 1)))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be >= 1, got 0"),
        ({"hidden": (8, 0)}, "hidden must be >= 1, got 0"),
        ({"activation": "swish"}, "unknown activation 'swish'"),
    ],
)
def test_bad_settings_are_refused(kwargs, message):
    with pytest.raises(InputError, match=message):
        build_vae((4, 4, 1), **kwargs)


def test_obvious_sizes_are_read():
    vae = build_vae(784, np.int64(2), hidden=256)
    assert vae.encoder.hidden == (256,) and vae.decoder.output_shape == (784,)
    assert build_vae([8, 8, 1], 2.0, encoder="conv", filters=32).encoder.filters == (
        32,
    )


@pytest.mark.parametrize(
    ("shape", "choices", "message"),
    [
        ((), {}, r"data_shape must be \(H, W, C\) or \(F,\), got \(\)"),
        (None, {}, "data_shape must be .*, got None"),
        ("mnist", {}, "data_shape must be .*, got 'mnist'"),
        ((1, 2, 3, 4), {}, "data_shape must be"),
        ((0,), {}, "data_shape must be >= 1, got 0"),
        ((-1, 2, 3), {}, "data_shape must be >= 1, got -1"),
        ((2.5,), {}, "data_shape must be an integer, got 2.5"),
        (4, {"latent_dim": 2.5}, "latent_dim must be an integer, got 2.5"),
        (4, {"latent_dim": "2"}, "latent_dim must be a number, got '2'"),
        (4, {"hidden": 0}, "hidden must be >= 1, got 0"),
        (4, {"hidden": "a"}, "hidden must be a number, got 'a'"),
        (4, {"encoder": MLPEncoder}, r"got the class MLPEncoder: call it, MLPEncoder"),
        (4, {"encoder": len}, "encoder must be a name or a Linen module"),
        (4, {"conditional": "concat", "num_classes": 0}, "num_classes must be >= 1"),
    ],
)
def test_sizes_and_parts_of_another_kind_are_refused(shape, choices, message):
    with pytest.raises(InputError, match=message):
        build_vae(shape, **choices)


def test_the_encoder_sees_a_missing_number_as_the_mean_of_its_column():
    """0 in standardized units; a likelihood that needs all numbers changes nothing."""
    x = jnp.array([[np.nan, 2.0, np.nan]])
    mixed = MixedHead(columns=(("real",),) * 3)
    vae = build_vae((3,), 2, hidden=(4,), likelihood=mixed)
    np.testing.assert_array_equal(vae.apply({}, x, method="observed"), [[0, 2, 0]])
    plain = build_vae((3,), 2, hidden=(4,))
    np.testing.assert_array_equal(plain.apply({}, x, method="observed"), x)
