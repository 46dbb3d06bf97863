"""Models, and the order of layers, from the tensors of PyTorch programs alone."""

import json

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.interop import from_torch, import_torch, infer_config
from flaxvae.interop.matching import read_names
from flaxvae.interop.order import guess_program
from flaxvae.models import AutoencoderConfig, VAEConfig, build_autoencoder, build_vae
from flaxvae.models.data_spec import DataSpec

torch = pytest.importorskip("torch")

from tests.interop.test_programs import PROGRAMS, SHAPE  # noqa: E402

UNTOLD = (
    "activation",
    "negative_slope",
    "before_reshape",
    "likelihood",
    "scale",
    "init_scale",
    "mean_activation",
    "feature_map",
)
STEPS = ("strides", "padding")


def untold(program):
    """What is printed in a program, and in none of its tensors."""
    stated = program.config()
    values = {name: getattr(stated, name, None) for name in UNTOLD}
    if values["before_reshape"] == "normalization":
        del values["before_reshape"]
    if isinstance(stated.padding, tuple):  # a feature map of any size
        values |= {name: getattr(stated, name) for name in STEPS}
    return values


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("by_name", [False, True], ids=["guessed", "named"])
def test_the_model_of_a_tutorial_is_found(capsys, name, by_name):
    program = PROGRAMS[name]
    tensors = program.build().state_dict()
    names = program.names if by_name else None
    config = infer_config(tensors, SHAPE, names=names, **untold(program))
    spec = DataSpec(SHAPE)
    assert config.build(spec) == program.config().build(spec)
    note = capsys.readouterr().err
    assert note.startswith("NOTE: read as a") and len(note.splitlines()) == 1


def test_a_last_kernel_as_large_as_the_image_needs_strides_and_padding():
    tensors = PROGRAMS["9, one pixel"].build().state_dict()
    message = r"strides and padding must be stated, since .* to a feature map"
    with pytest.raises(InputError, match=message):
        infer_config(tensors, SHAPE)
    with pytest.raises(InputError, match="no stated strides and padding lead"):
        infer_config(tensors, SHAPE, strides=2, padding=(1, 1))


def dense(**sizes):
    """A state dict of dense layers, ``name=(inputs, outputs)``."""
    state_dict = {}
    for name, (inputs, outputs) in sizes.items():
        name = name.replace("__", ".")
        state_dict[f"{name}.weight"] = np.full((outputs, inputs), 0.5, np.float32)
        state_dict[f"{name}.bias"] = np.arange(outputs, dtype=np.float32)
    return state_dict


def heads(mean="fc_mu", log_var="fc_logvar", width=5):
    return {mean: (width, 2), log_var: (width, 2)}


GUESSED = {
    "numbers of an nn.Sequential": (
        dense(enc__0=(8, 5), enc__10=(5, 5), enc__2=(5, 5), **heads(), dec__0=(2, 8)),
        "enc.0, enc.2, enc.10; fc_mu (means), fc_logvar (log-variances); dec.0",
    ),
    "numbers on both sides": (
        dense(fc1=(8, 5), fc2=(5, 5), **heads(), fc3=(2, 5), fc4=(5, 5), fc5=(5, 8)),
        "fc1, fc2; fc_mu (means), fc_logvar (log-variances); fc3, fc4, fc5",
    ),
    "one layer of both heads": (
        dense(a=(8, 5), b=(5, 4), c=(2, 6), d=(6, 8)),
        "a; b (means, then log-variances); c, d",
    ),
    "another order in the file": (
        dense(d=(6, 8), c=(2, 6), **heads("z_mean", "z_log_var"), a=(8, 5)),
        "a; z_mean (means), z_log_var (log-variances); c, d",
    ),
    "numbered heads": (
        dense(fc1=(8, 5), fc2_1=(5, 2), fc2_2=(5, 2), fc3=(2, 5), fc4=(5, 8)),
        "fc1; fc2_1 (means), fc2_2 (log-variances); fc3, fc4",
    ),
    "an autoencoder without sides": (
        dense(a=(8, 6), b=(6, 3), c=(3, 5), d=(5, 8)),
        "a; b (code); c, d",
    ),
    "an autoencoder with a wide code": (
        dense(encoder__0=(8, 5), encoder__2=(5, 6), decoder__0=(6, 8)),
        "encoder.0; encoder.2 (code); decoder.0",
    ),
    "no hidden layers": (
        dense(mu=(8, 2), logvar=(8, 2), out=(2, 8)),
        "mu (means), logvar (log-variances); out",
    ),
}


@pytest.mark.parametrize("name", GUESSED)
def test_the_only_order_is_found(name):
    tensors, expected = GUESSED[name]
    assert guess_program(tensors, (8,)).describe() == expected


REFUSED = {
    "heads": (
        dense(a=(8, 5), b=(5, 2), c=(5, 2), d=(2, 8)),
        "which of b and c, both 5 to 2, is the layer of the means and which of the",
    ),
    "a standard deviation": (
        dense(a=(8, 5), **heads("fc_mu", "fc_std"), d=(2, 8)),
        "names must say what fc_std computes: if log-variances",
    ),
    "a variance": (
        dense(a=(8, 5), **heads("mu", "var"), d=(2, 8)),
        "what var computes",
    ),
    "hidden layers": (
        dense(a=(8, 5), b=(5, 5), c=(5, 5), **heads(), d=(2, 8)),
        "more than one fits: a, b, c; fc_mu .* or a, c, b; fc_mu",
    ),
    "other data": (
        dense(fc1=(784, 5), **heads(), d=(2, 784)),
        r"fc1 reads 784 numbers per example, the examples of shape \(8,\) have 8",
    ),
    "convolutions after upsampling": (
        dense(fc_mu=(8, 2), fc_logvar=(8, 2), dec__0=(2, 8))
        | {"dec.2.weight": np.ones((1, 4, 3, 3)), "dec.2.bias": np.zeros(1)},
        r"a decoder with transposed convolutions, got the convolution dec\.2",
    ),
    "no order": (
        dense(a=(8, 5), **heads(), d=(3, 8)),
        r"since none fits examples of shape \(8,\): a \(8 to 5\), fc_mu",
    ),
    "another layer": (
        dense(a=(8, 5)) | {"lstm.weight_ih_l0": np.ones((4, 4), np.float32)},
        "must be those of dense layers, convolutions and .*, got lstm.weight_ih_l0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_clear_is_refused(name):
    tensors, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        infer_config(tensors, 8)


def norm(**widths):
    """A state dict of batch normalizations."""
    leaves = ("weight", "bias", "running_mean", "running_var")
    return {
        f"{name.replace('__', '.')}.{leaf}": np.ones(width, np.float32)
        for name, width in widths.items()
        for leaf in leaves
    }


def kernels(**shapes):
    """A state dict of convolutions with kernels of 3."""
    state_dict = {}
    for name, (outputs, inputs, transposed) in shapes.items():
        shape = (inputs, outputs) if transposed else (outputs, inputs)
        name = name.replace("__", ".")
        state_dict[f"{name}.weight"] = np.ones((*shape, 3, 3), np.float32)
        state_dict[f"{name}.bias"] = np.zeros(outputs, np.float32)
    return state_dict


def conv_autoencoder(first=2, code=5, image=0, out=3):
    """An autoencoder of 8 x 8 images by the numbers of its ``nn.Sequential``."""
    return (
        kernels(encoder__0=(4, 1, False), **{f"encoder__{first}": (6, 4, False)})
        | dense(**{f"encoder__{code}": (24, 3), f"decoder__{image}": (3, 24)})
        | kernels(**{f"decoder__{out}": (4, 6, True), "decoder__9": (1, 4, True)})
    )


GAPS = {  # numbers of an nn.Sequential: settings, or a part of the refusal
    "a ReLU before the reshape": (conv_autoencoder(), {"before_reshape": "activation"}),
    "none before the reshape": (conv_autoencoder(out=2), {"before_reshape": "none"}),
    "pooling": (conv_autoencoder(3, 6), "strides must be stated for 2 modules between"),
    "no activation": (
        conv_autoencoder(code=4),
        "no activation between encoder.2 and encoder.4",
    ),
    "a linear code": (
        dense(m__0=(64, 5), m__2=(5, 3), m__3=(3, 5), m__5=(5, 64)),
        {"code_activation": "none"},
    ),
    "an activated code": (
        dense(m__0=(64, 5), m__2=(5, 3), m__4=(3, 5), m__6=(5, 64)),
        {"code_activation": "relu"},
    ),
    "a list of layers": (
        dense(e__0=(64, 5), e__1=(5, 5), e__2=(5, 3), d__0=(3, 5), d__1=(5, 64)),
        {"activation": "relu"},
    ),
    "an activation before a normalization": (
        dense(e__0=(64, 5), e__3=(5, 3), d__0=(3, 64)) | norm(e__2=5),
        "a module between e.0 and its normalization e.2, such as an activation",
    ),
    "an activated map": (
        kernels(m__0=(4, 1, False), m__2=(2, 4, False))
        | kernels(m__4=(4, 2, True), m__6=(1, 4, True)),
        {"feature_map": "activated"},
    ),
    "slopes": (
        dense(e__0=(64, 5), e__2=(5, 3), d__0=(3, 64)) | {"e.1.weight": np.ones(5)},
        "dense layers, convolutions and normalizations, got e.1.weight",
    ),
}


@pytest.mark.parametrize("name", GAPS)
def test_numbers_tell_of_modules_without_weights(name):
    tensors, expected = GAPS[name]
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            infer_config(tensors, (8, 8, 1))
        return
    config = infer_config(tensors, (8, 8, 1))
    for field, value in expected.items():
        assert (getattr(config, field) or "none") == value


@pytest.mark.parametrize(
    ("activation", "last", "expected"),
    [
        (torch.nn.Tanh, torch.nn.Sigmoid, "tanh"),
        (torch.nn.ReLU, torch.nn.Tanh, "relu"),
        (torch.nn.Sigmoid, torch.nn.Sigmoid, "sigmoid"),
        (torch.nn.Identity, torch.nn.Sigmoid, "relu"),  # functions are not seen
        (torch.nn.GELU, torch.nn.Sigmoid, "gelu_exact"),
        (lambda: torch.nn.LeakyReLU(0.3), torch.nn.Sigmoid, "leaky_relu"),
        (lambda: torch.nn.MaxPool2d(2), torch.nn.Sigmoid, None),
    ],
)
def test_modules_tell_their_activation(activation, last, expected):
    linear = torch.nn.Linear
    module = torch.nn.Sequential()
    module.encoder = torch.nn.Sequential(linear(8, 5), activation(), linear(5, 2))
    module.decoder = torch.nn.Sequential(
        linear(2, 5), activation(), linear(5, 8), last()
    )
    if expected is None:
        with pytest.raises(InputError, match="flaxvae's parts can build, got MaxPool2"):
            infer_config(module, 8)
        return
    config = infer_config(module, 8)
    assert config.activation == expected
    assert config.negative_slope == (0.3 if expected == "leaky_relu" else None)
    assert infer_config(module, 8, activation="silu").activation == "silu"


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((torch.nn.Softplus, torch.nn.Softplus), "parts can build, got Softplus"),
        ((torch.nn.Mish, torch.nn.Mish), "parts can build, got Mish"),
        ((lambda: torch.nn.ELU(0.3), torch.nn.ELU), "got ELU with alpha=0.3"),
        ((torch.nn.SiLU, torch.nn.ReLU), "with several, got silu, relu"),
        (
            (lambda: torch.nn.LeakyReLU(0.2), torch.nn.ReLU),
            "activation must be stated for a module with several, got leaky_relu, relu",
        ),
    ],
)
def test_activations_that_flaxvae_would_exchange_are_refused(parts, message):
    linear = torch.nn.Linear
    module = torch.nn.Sequential()
    module.encoder = torch.nn.Sequential(linear(8, 5), parts[0](), linear(5, 2))
    module.decoder = torch.nn.Sequential(linear(2, 5), parts[1](), linear(5, 8))
    with pytest.raises(InputError, match=message):
        infer_config(module, 8)
    if "stated" in message:
        stated = {"activation": "leaky_relu", "decoder_activation": "relu"}
        config = infer_config(module, 8, **stated)
        assert (config.activation, config.decoder_activation) == tuple(stated.values())


class Stepped(torch.nn.Module):
    """A VAE of 16 x 16 images whose strides are not the usual ones."""

    def __init__(self, out=(1, 3), more=(0, 3), **options):
        super().__init__()
        nn = torch.nn
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=4, padding=1, **options),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=1, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.mu, self.logvar = nn.Linear(96, 2), nn.Linear(96, 2)
        self.fc = nn.Linear(2, 96)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(6, 4, 3, stride=1, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(
                4, 1, out[1], stride=4, padding=1, output_padding=more[1]
            ),
        )

    def forward(self, x):
        mean = self.mu(self.encoder(x))
        return mean, self.decoder(self.fc(mean).reshape(-1, 6, 4, 4))


def test_strides_and_padding_are_those_of_a_module(capsys):
    module = Stepped()
    config = infer_config(module.state_dict(), (16, 16, 1))
    assert config.strides == 2  # as usual, from 16 to 4 in two steps
    config = infer_config(module, (16, 16, 1))
    assert (config.strides, config.padding, config.decoder_strides) == ((4, 1), 1, None)
    assert "strides=" not in capsys.readouterr().err.splitlines()[-1]
    with pytest.raises(InputError, match="strides must be 4 1, as in the weights"):
        infer_config(module, (16, 16, 1), strides=2)

    x = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    trained = import_torch(module, x, likelihood="bernoulli", before_reshape="none")
    with torch.no_grad():
        mean, logits = module(torch.from_numpy(x.reshape(3, 1, 16, 16)))
    z = trained.encode(x)
    np.testing.assert_allclose(z.mean, mean, atol=1e-5)
    found = trained.decode(z.mean).logits.reshape(3, 1, 16, 16)
    np.testing.assert_allclose(found, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dilation": 2}, r"got encoder.0 with dilation=2"),
        ({"padding_mode": "reflect"}, r"got encoder.0 with padding_mode=reflect"),
        ({"out": (1, 5), "more": (0, 0)}, r"got decoder.2 with output_padding=0"),
    ],
)
def test_convolutions_that_flaxvae_does_not_have_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        infer_config(Stepped(**options), (16, 16, 1))


def two_layers(first, second, last=None):
    """A module with an activation in its encoder and one in its decoder."""
    linear = torch.nn.Linear
    module = torch.nn.Sequential()
    module.encoder = torch.nn.Sequential(linear(8, 5), first)
    module.mu, module.logvar = linear(5, 2), linear(5, 2)
    end = [] if last is None else [last]
    module.decoder = torch.nn.Sequential(linear(2, 5), second, linear(5, 8), *end)
    return module


class Swish(torch.nn.Module):
    """An activation of one's own."""


@pytest.mark.parametrize(
    ("first", "second", "last", "message"),
    [
        (torch.nn.Tanh, torch.nn.ReLU, torch.nn.Sigmoid, "several, got tanh, relu"),
        (torch.nn.ReLU, torch.nn.Sigmoid, torch.nn.Sigmoid, "got relu, sigmoid"),
        (torch.nn.Identity, torch.nn.Identity, torch.nn.Tanh, "with one Tanh, which"),
        (Swish, Swish, None, "got Swish, unless activation says"),
    ],
)
def test_activations_inside_are_not_taken_for_those_of_the_outputs(
    first, second, last, message
):
    module = two_layers(first(), second(), last and last())
    with pytest.raises(InputError, match=message):
        infer_config(module, 8)
    assert infer_config(module, 8, activation="tanh").activation == "tanh"


@pytest.mark.parametrize("leaky", ["activation", "decoder_activation"])
def test_the_slope_is_the_modules_whichever_activation_leaks(leaky, capsys):
    parts = [torch.nn.LeakyReLU(0.2), torch.nn.ReLU()]
    stated = {"activation": "leaky_relu", "decoder_activation": "relu"}
    if leaky == "decoder_activation":
        parts, stated = (
            parts[::-1],
            dict(zip(stated, ["relu", "leaky_relu"], strict=True)),
        )
    config = infer_config(two_layers(*parts), 8, **stated)
    assert config.negative_slope == 0.2
    assert "negative_slope=0.2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("norm", "message"),
    [
        (lambda: torch.nn.BatchNorm1d(5, track_running_stats=False), "running_stats"),
        (lambda: torch.nn.GroupNorm(5, 5), "GroupNorm with num_groups=5, not 1"),
        (lambda: torch.nn.InstanceNorm1d(5, affine=True), "got InstanceNorm1d"),
        (lambda: torch.nn.LayerNorm(5, eps=1e-3), "LayerNorm with eps=0.001"),
        (lambda: torch.nn.LayerNorm(5, eps=1e-6), None),  # flaxvae's own
    ],
)
def test_normalizations_that_flaxvae_does_not_compute_are_refused(norm, message):
    module = two_layers(torch.nn.ReLU(), torch.nn.ReLU())
    for part in (module.encoder, module.decoder):
        part.insert(1, norm())
    if message is None:
        assert infer_config(module, 8).normalization == "layer"
        return
    with pytest.raises(InputError, match=message):
        infer_config(module, 8)


def test_a_normalization_of_another_epsilon_is_refused():
    linear = torch.nn.Linear
    for eps in (1e-5, 1e-2):
        module = torch.nn.Sequential()
        norm = torch.nn.BatchNorm1d(5, eps=eps)
        module.encoder = torch.nn.Sequential(
            linear(8, 5), norm, torch.nn.ReLU(), linear(5, 2)
        )
        module.decoder = torch.nn.Sequential(
            linear(2, 5), torch.nn.BatchNorm1d(5), torch.nn.ReLU(), linear(5, 8)
        )
        if eps == 1e-5:
            assert infer_config(module, 8).normalization == "batch"
            continue
        with pytest.raises(InputError, match=r"got BatchNorm1d with eps=0\.01"):
            infer_config(module, 8)


def test_a_normalization_without_statistics_is_named(capsys):
    layer = norm(e__1=5)
    tensors = dense(e__0=(8, 5), **heads(), d__0=(2, 8))
    tensors |= {name: layer[name] for name in ("e.1.weight", "e.1.bias")}
    assert infer_config(tensors, 8).normalization == "layer"
    assert "normalization=layer (LayerNorm, epsilon 1e-6" in capsys.readouterr().err


def test_heads_alone_can_be_named():
    tensors, _ = REFUSED["heads"]
    names = {"posterior.mean_and_log_var": ["c", "b"]}
    assert infer_config(tensors, 8, names=names).hidden == (5,)
    shape = (2, 2, 2)
    decoder = build_vae(shape, 2, hidden=()).decoder
    vae = build_vae(shape, 2, hidden=(5,), decoder=decoder)
    renamed = {
        n.replace("c.", "mu.").replace("b.", "logvar."): t for n, t in tensors.items()
    }
    found = from_torch(tensors, vae, shape, names=names)["params"]
    expected = from_torch(renamed, vae, shape)["params"]
    for part in ("encoder", "posterior", "decoder"):
        for layer, values in expected[part].items():
            for leaf, value in values.items():
                np.testing.assert_array_equal(found[part][layer][leaf], value)


def test_names_may_have_the_prefix_of_the_file():
    tensors, _ = REFUSED["hidden layers"]
    names = {
        "encoder.hidden_0": "a",
        "encoder.hidden_1": "c",
        "encoder.hidden_2": "b",
        "posterior.mean_and_log_var": ["fc_mu", "fc_logvar"],
        "decoder.output": "d",
    }
    config = infer_config(tensors, 8, names=names)
    assert (config.hidden, config.decoder_hidden) == ((5, 5, 5), ())
    tensors = {f"module.{name}": tensor for name, tensor in tensors.items()}
    names = {
        ours: f"module.{theirs}"
        if isinstance(theirs, str)
        else [f"module.{name}" for name in theirs]
        for ours, theirs in names.items()
    }
    assert infer_config(tensors, 8, names=names) == config


OWN = {
    "mlp": (build_vae, {"hidden": (5, 4)}, {}),
    "mlp-batch": (build_vae, {"hidden": (5, 5), "normalization": "batch"}, {}),
    "conv": (
        build_vae,
        {"encoder": "conv", "filters": (3, 4), "hidden": (7,), "padding": 1},
        {},
    ),
    "conv-mlp": (
        build_vae,
        {
            "encoder": "conv",
            "decoder": "mlp",
            "filters": (3, 4),
            "padding": 1,
            "hidden": (7,),
        },
        {},
    ),
    "autoencoder": (build_autoencoder, {"hidden": (5, 5), "latent_dim": 6}, {}),
    "resnet": (
        build_vae,
        {
            "encoder": "resnet",
            "filters": (4, 8),
            "bottleneck": 2,
            "normalization": "batch",
        },
        {"encoder": "resnet", "filters": (4, 8), "bottleneck": 2, "latent_dim": 2},
    ),
}


@pytest.mark.parametrize("name", OWN)
def test_flaxvaes_own_names_are_known(name):
    import jax

    from flaxvae.interop import to_torch
    from flaxvae.models.variables import variable_shapes

    build, settings, stated = OWN[name]
    shape = (8, 8, 1)
    model = build(shape, **settings)
    shapes = variable_shapes(model, shape)
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, leaf.dtype), shapes)
    state_dict = to_torch(variables, model, shape)
    if name == "resnet":
        stated = {**stated, "normalization": "batch"}
    config = infer_config(state_dict, shape, **stated)
    again = config.build(DataSpec(shape))
    found = variable_shapes(again, shape)["params"]
    assert jax.tree.map(np.shape, found) == jax.tree.map(np.shape, shapes["params"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 3}, "latent_dim must be 2, as in the weights .*, got 3"),
        ({"hidden": (4,)}, "hidden must be 5, as in the weights .*, got 4"),
        ({"hidden": [5], "encoder": "conv"}, "encoder must be mlp, as in the weights"),
        ({"kind": "autoencoder"}, "kind must be vae, as in the weights"),
        ({"kind": "gan"}, "unknown kind 'gan': choose from autoencoder, vae"),
        ({"biases": "always"}, "biases must be left out for weights without batch"),
        ({"normalization": "batch"}, "normalization must be none, as in the weights"),
        ({"rate": 0.1}, "rate must be left out for the kind vae, got 0.1"),
    ],
)
def test_settings_that_contradict_the_tensors_are_refused(settings, message):
    tensors, _ = GUESSED["numbered heads"]
    with pytest.raises(InputError, match=message):
        infer_config(tensors, 8, **settings)


def conv(kernel=3, places=4, channels=1, outwards=None):
    """A state dict of two convolutions, heads that read ``places`` pixels, and back."""
    sizes = {"enc.0": (4, channels), "enc.2": (6, 4), "dec.1": (6, 4), "dec.3": (4, 1)}
    state_dict = dense(
        mu=(6 * places, 2), logvar=(6 * places, 2), dec__0=(2, 6 * places)
    )
    for name, shape in sizes.items():
        size = kernel if name.startswith("enc") else outwards or kernel
        state_dict[f"{name}.weight"] = np.ones((*shape, size, size), np.float32)
        bias = shape[0] if name.startswith("enc") else shape[1]
        state_dict[f"{name}.bias"] = np.zeros(bias, np.float32)
    return state_dict


@pytest.mark.parametrize(
    ("kernel", "places", "expected"),
    [(3, 4, (2, 1)), (4, 4, (2, 1)), (3, 1, (2, 0)), (5, 4, (2, 2)), (3, 64, (1, 1))],
)
def test_strides_and_padding_follow_from_the_sizes(kernel, places, expected):
    if (kernel, places) == (3, 1):  # 3 and 1 fit too
        with pytest.raises(
            InputError, match="strides and padding must be stated, since"
        ):
            infer_config(conv(kernel, places), (8, 8, 1))
    stated = {"strides": expected[0]} if places == 1 else {}
    config = infer_config(conv(kernel, places), (8, 8, 1), **stated)
    assert (config.strides, config.padding) == expected
    assert config.decoder_strides is None and config.decoder_padding is None


@pytest.mark.parametrize(("outwards", "padding"), [(2, 0), (4, None), (5, 2)])
def test_a_decoder_may_have_kernels_of_its_own(outwards, padding):
    config = infer_config(conv(outwards=outwards), (8, 8, 1))
    assert (config.kernel_size, config.decoder_kernel_size) == (3, outwards)
    assert (config.padding, config.decoder_padding) == (1, padding)
    config.build(DataSpec((8, 8, 1)))


@pytest.mark.parametrize(
    ("tensors", "shape", "stated", "message"),
    [
        (
            conv(places=3),
            (8, 8, 1),
            {},
            r"no common strides .* to the encoder's image of 3 pixels",
        ),
        (
            conv(),
            (8, 8, 1),
            {"strides": 3},
            "no stated strides and padding lead .* kernels of 3, 3",
        ),
        (
            conv(),
            (8, 8, 3),
            {},
            r"enc.0 reads 1 channels .* of shape \(8, 8, 3\) have 3",
        ),
        (conv(), (64,), {}, "since none fits examples|reads 1 channels"),
    ],
)
def test_images_that_do_not_fit_are_refused(tensors, shape, stated, message):
    with pytest.raises(InputError, match=message):
        infer_config(tensors, shape, **stated)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"encoder', "names must be a JSON file, got"),
        ("[1]", "names must be a dict from flaxvae's layers to PyTorch's"),
        (
            '{"encoder.hidden_0": 3}',
            "names must be texts, got 3 for 'encoder.hidden_0'",
        ),
        (
            '{"encoder.hidden_0": ["a", "b"]}',
            "names must be one text per layer, and two",
        ),
        ('{"a": "b", "a": "c"}', "names must name a layer once, got a twice"),
        (
            '{"encoder.hidden_0": "a", "decoder.output": "a"}',
            "names must name each of PyTorch's layers once, got a for encoder.hidden_0",
        ),
    ],
)
def test_files_of_names_are_checked(tmp_path, text, message):
    path = tmp_path / "names.json"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        read_names(str(path))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"encoder.hiden_0": "a"}, "unknown layer 'encoder.hiden_0': choose from"),
        (
            {"encoder.hidden_0": "z"},
            "names must be of the weights' layers, a, b, .* got z",
        ),
        (
            {"encoder.hidden_0": "a"},
            "names must be of all of the weights' layers, got none",
        ),
        ("tutorial", "unknown architecture 'tutorial': choose from autoencoder"),
    ],
)
def test_names_of_no_layers_are_refused(names, message):
    with pytest.raises(InputError, match=message):
        infer_config(REFUSED["heads"][0], 8, names=names)


def test_names_of_a_file_are_a_dict(tmp_path):
    path = tmp_path / "names.JSON"
    path.write_text(json.dumps({"code.code": "a"}))
    assert read_names(str(path)) == {"code.code": "a"}
    assert isinstance(
        infer_config(GUESSED["an autoencoder without sides"][0], 8), AutoencoderConfig
    )
    assert isinstance(infer_config(GUESSED["numbered heads"][0], 8), VAEConfig)
