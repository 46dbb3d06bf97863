"""Weights of the architectures that tutorials teach, by their own names."""

import itertools

import jax
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.interop import ARCHITECTURES, from_torch, to_torch
from flaxvae.models import AutoencoderConfig, VAEConfig, build_vae
from flaxvae.models.data_spec import DataSpec
from flaxvae.models.variables import variable_shapes
from tests.random_variables import random_values

torch = pytest.importorskip("torch")
nn = torch.nn

SHAPE = (8, 8, 1)


class Examples(nn.Module):
    """pytorch/examples, vae."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = (
            nn.Linear(64, 9),
            nn.Linear(9, 3),
            nn.Linear(9, 3),
        )
        self.fc3, self.fc4 = nn.Linear(3, 9), nn.Linear(9, 64)

    def forward(self, x):
        h = self.fc1(x.flatten(1)).relu()
        mean = self.fc21(h)
        return mean, self.fc22(h), self.fc4(self.fc3(mean).relu())


class TwoParts(nn.Module):
    """An encoder and a decoder of two layers each."""

    def __init__(self, mean, log_var, out):
        super().__init__()
        self.names = mean, log_var, out
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.fc1, self.decoder.fc1 = nn.Linear(64, 9), nn.Linear(3, 9)
        setattr(self.encoder, mean, nn.Linear(9, 3))
        setattr(self.encoder, log_var, nn.Linear(9, 3))
        setattr(self.decoder, out, nn.Linear(9, 64))

    def forward(self, x):
        mean, log_var, out = self.names
        h = self.encoder.fc1(x.flatten(1)).relu()
        z = getattr(self.encoder, mean)(h)
        logits = getattr(self.decoder, out)(self.decoder.fc1(z).relu())
        return z, getattr(self.encoder, log_var)(h), logits


class Sequential(nn.Module):
    """Lists of layers, numbered past ten."""

    def __init__(self):
        super().__init__()
        widths = (64, 9, 8, 7, 6, 5, 4)
        self.encoder_layers = self.dense(widths)
        self.fc_mu, self.fc_logvar = nn.Linear(4, 3), nn.Linear(4, 3)
        self.decoder = self.dense((3, *widths[:0:-1]))
        self.decoder.append(nn.Linear(9, 64))

    @staticmethod
    def dense(widths):
        pairs = itertools.pairwise(widths)
        layers = [(nn.Linear(i, o), nn.ReLU()) for i, o in pairs]
        return nn.Sequential(*(part for layer in layers for part in layer))

    def forward(self, x):
        h = self.encoder_layers(x.flatten(1))
        mean = self.fc_mu(h)
        return mean, self.fc_logvar(h), self.decoder(mean)


class SequentialConv(nn.Module):
    """Convolutions with batch normalization."""

    def __init__(self):
        super().__init__()
        self.encoder_conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.2),
            nn.Conv2d(4, 6, 3, 2, 1, bias=False),
            nn.BatchNorm2d(6),
            nn.LeakyReLU(0.2),
        )
        self.fc_mu, self.fc_logvar = nn.Linear(24, 3), nn.Linear(24, 3)
        self.decoder_fc = nn.Linear(3, 24)
        self.decoder_conv = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 3, 2, 1, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.LeakyReLU(0.2),
            nn.ConvTranspose2d(4, 1, 3, 2, 1, 1),
        )

    def forward(self, x):
        h = self.encoder_conv(x).flatten(1)
        mean = self.fc_mu(h)
        image = self.decoder_fc(mean).view(-1, 6, 2, 2)
        return mean, self.fc_logvar(h), self.decoder_conv(image)


class ConvLayers(nn.Module):
    """An encoder and a decoder with convolutions of their own."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Module(), nn.Module()
        self.encoder.conv_layers = nn.Sequential(
            nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU()
        )
        self.encoder.fc_mu, self.encoder.fc_logvar = (
            nn.Linear(24, 3),
            nn.Linear(24, 3),
        )
        self.decoder.fc = nn.Linear(3, 24)
        self.decoder.conv_layers = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 3, 2, 1, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 1, 3, 2, 1, 1),
        )

    def forward(self, x):
        h = self.encoder.conv_layers(x).flatten(1)
        mean = self.encoder.fc_mu(h)
        image = self.decoder.fc(mean).view(-1, 6, 2, 2)
        return mean, self.encoder.fc_logvar(h), self.decoder.conv_layers(image)


CONV = {"encoder": "conv", "filters": (4, 6), "kernel_size": 3, "padding": 1}
PROGRAMS = {
    "pytorch_examples": (Examples, {"hidden": (9,)}),
    "encoder_decoder": (lambda: TwoParts("fc21", "fc22", "fc2"), {"hidden": (9,)}),
    "encoder_decoder_out": (
        lambda: TwoParts("fc_mean", "fc_log_var", "fc_out"),
        {"hidden": (9,)},
    ),
    "sequential": (Sequential, {"hidden": (9, 8, 7, 6, 5, 4)}),
    "sequential_conv": (
        SequentialConv,
        CONV
        | {
            "normalization": "batch",
            "activation": "leaky_relu",
            "negative_slope": 0.2,
        },
    ),
    "conv_layers": (ConvLayers, CONV),
}


# Models of the other architectures, and some of the names that are written for them.
OTHERS = {
    "flat": ({"hidden": (9,)}, "fc1 fc_mu fc_logvar fc2 fc3"),
    "flat_deep": ({"hidden": (9, 8)}, "fc1 fc2 fc31 fc32 fc4 fc5 fc6"),
    "fc_input": ({"hidden": (9, 8)}, "Encoder.FC_input2 Decoder.FC_hidden2"),
    "encoder_decoder_mu": ({"hidden": (9,)}, "encoder.fc_mu decoder.fc2"),
    "sequential_encoder": (
        {"hidden": (9, 8), "dropout": 0.1},
        "encoder.0 encoder.3 fc_mu decoder.0 decoder.3 decoder.6",
    ),
    "sequential_encoder, conv": (
        {"normalization": "batch"},
        "encoder.0 encoder.1 encoder.4 decoder_input decoder.0 decoder.1 decoder.3",
    ),
    "conv_dense": (
        {"hidden": (9,), "normalization": "batch", "dense_normalization": "none"},
        "encoder.conv2 encoder.bn2 encoder.fc1 decoder.fc2 decoder.deconv2 decoder.bn1",
    ),
    "conv_flat": (
        {"hidden": (9,)},
        "conv1 conv2 fc1 fc_mu fc_logvar fc2 fc3 deconv1 deconv2",
    ),
    "autoencoder": (
        {"hidden": (9, 8), "encoder": "mlp"},
        "encoder.0 encoder.2 encoder.4 decoder.0 decoder.4",
    ),
    "autoencoder, conv": (
        {"before_reshape": "activation"},
        "encoder.0 encoder.3 encoder.7 decoder.0 decoder.3 decoder.6",
    ),
    "autoencoder_layers": (
        {"hidden": (9, 8), "encoder": "mlp"},
        "encoder.fc1 encoder.fc2 encoder.fc3 decoder.fc1 decoder.fc2 decoder.fc3",
    ),
    "autoencoder_layers, conv": (
        {"normalization": "none"},
        "encoder.conv1 encoder.conv2 encoder.fc1 decoder.fc1 decoder.deconv2",
    ),
}


def test_there_is_a_program_for_each():
    tested = PROGRAMS.keys() | {name.split(",")[0] for name in OTHERS}
    assert tested == ARCHITECTURES.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_names_that_are_written_are_read(name):
    settings, some = OTHERS[name]
    name, *of_conv = name.split(", ")
    known = ARCHITECTURES[name]
    conv = CONV if of_conv or known.settings.get("encoder") == "conv" else {}
    kind = VAEConfig if known.kind == "vae" else AutoencoderConfig
    config = kind(latent_dim=3, **{**known.settings, **conv, **settings})
    model = config.build(DataSpec(SHAPE))
    variables = random_values(variable_shapes(model, SHAPE))
    tensors = to_torch(variables, model, SHAPE, names=name)
    assert {f"{layer}.weight" for layer in some.split()} <= tensors.keys()
    back = from_torch(tensors, model, SHAPE, names=name)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, back))


@pytest.mark.parametrize("padding", ["SAME", 1])
def test_padding_that_torch_does_not_have_is_said(padding, capsys):
    vae = build_vae(SHAPE, 3, encoder="conv", filters=(4,), padding=padding)
    to_torch(random_values(variable_shapes(vae, SHAPE)), vae, SHAPE)
    assert ("train with padding=1" in capsys.readouterr().err) == (padding == "SAME")


@pytest.mark.parametrize(
    ("names", "settings", "message"),
    [
        ("autoencoder", {}, "the model must be an autoencoder for the architecture"),
        ("pytorch_examples", {"hidden": (9, 8)}, "none for encoder.hidden_1"),
        ("pytorch_examples", {"encoder": "resnet"}, "left out for a residual network"),
        ("sequential_encoder", {"encoder": "resnet"}, "left out for a residual netw"),
    ],
)
def test_models_without_names_are_refused(names, settings, message):
    vae = build_vae(SHAPE, 3, **settings)
    variables = variable_shapes(vae, SHAPE)
    with pytest.raises(InputError, match=message):
        to_torch(variables, vae, SHAPE, names=names)


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_program_gives_the_same_numbers_here(key, name):
    program, settings = PROGRAMS[name]
    torch.manual_seed(0)
    module = program()
    for _ in range(3):  # statistics of their own
        module(torch.rand(16, 1, 8, 8))
    module.eval()
    vae = build_vae(SHAPE, 3, **settings)
    variables = from_torch(module.state_dict(), vae, SHAPE, names=name)
    x = np.array(jax.random.uniform(key, (5, *SHAPE)))
    with torch.no_grad():
        mean, log_var, logits = module(torch.from_numpy(x).permute(0, 3, 1, 2))

    @jax.jit
    def reconstruct(variables, x):
        q = vae.apply(variables, x, method="encode")
        return q, vae.apply(variables, q.mean, method="decode")

    q, p = reconstruct(variables, x)
    logits = logits.view(5, 1, 8, 8).permute(0, 2, 3, 1)
    for ours, theirs in ((q.mean, mean), (q.log_var, log_var), (p.logits, logits)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_names_of_ones_own():
    torch.manual_seed(0)
    module = Examples()
    vae = build_vae(SHAPE, 3, hidden=(9,))
    names = {
        "encoder.hidden_0": "fc1",
        "posterior.mean_and_log_var": ("fc21", "fc22"),
        "decoder.hidden_0": "fc3",
        "decoder.output": "fc4",
    }
    variables = from_torch(module.state_dict(), vae, SHAPE, names=names)
    expected = from_torch(module.state_dict(), vae, SHAPE, names="pytorch_examples")
    for a, b in zip(*map(jax.tree.leaves, (variables, expected)), strict=True):
        np.testing.assert_array_equal(a, b)
    back = to_torch(variables, vae, SHAPE, names=names)
    assert all(torch.equal(back[n], t) for n, t in module.state_dict().items())


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("tutorial", "unknown architecture 'tutorial': choose from autoencoder"),
        ({"encoder.hidden_7": "fc1"}, "unknown layer 'encoder.hidden_7': choose from"),
        ("conv_layers", "the encoder's layers must be as many as the model's 1, got 0"),
    ],
)
def test_wrong_names_are_refused(names, message):
    vae = build_vae(SHAPE, 3, hidden=(9,))
    with pytest.raises(InputError, match=message):
        from_torch(Examples().state_dict(), vae, SHAPE, names=names)
