import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

from flaxvae.checks import InputError
from flaxvae.models import build_vae
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
    variables = vae.init(key, x, key=key, method=ELBO())
    q = vae.apply(variables, x, method="encode")
    assert q.mean.shape == q.log_var.shape == (5, 3)
    p = vae.apply(variables, jnp.zeros((2, 5, 3)), method="decode")
    assert p.logits.shape == (2, 5, 4, 4, 1)
    prior = vae.apply(variables, method=lambda vae: vae.prior())
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
