"""Programs of tutorials, as printed, give the same numbers here."""

import functools
import math
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
import pytest

import flaxvae
from flaxvae.interop import ARCHITECTURES, from_torch, to_torch
from flaxvae.models import AutoencoderConfig, VAEConfig
from flaxvae.models.data_spec import DataSpec
from flaxvae.objectives import ELBO, Reconstruction
from flaxvae.training import Trained

torch = pytest.importorskip("torch")

from tests.interop import programs as p  # noqa: E402

SHAPE = (28, 28, 1)
BATCH = 8
UNIT_ERROR = math.sqrt(0.5)  # at which -log p(x|z) is the sum of squares
SQUARES = {"likelihood": "normal", "scale": "fixed", "init_scale": UNIT_ERROR}


@dataclass(frozen=True)
class Program:
    """A PyTorch program, its name here, and the settings that name it does not have."""

    build: Any
    names: str
    latent_dim: int | None
    settings: dict[str, Any] = field(default_factory=dict)
    loss: Any = p.bce_loss
    prints_own_names: bool = True  # the names that `to_torch` writes by default

    def config(self):
        known = ARCHITECTURES[self.names]
        kind = VAEConfig if known.kind == "vae" else AutoencoderConfig
        settings = {**known.settings, **self.settings}
        return kind(latent_dim=self.latent_dim, **settings)


KERNEL_3 = {"filters": (32, 64), "kernel_size": 3}
BATCH_NORM = {"normalization": "batch", "batch_norm": "torch", "biases": "always"}
THREE = {"filters": (32, 64, 128), "kernel_size": 3} | BATCH_NORM
DCGAN_ENDS = SQUARES | {"mean_activation": "tanh"}
MAP = {
    "encoder": "conv",
    "padding": 1,
    "filters": (16, 4),
    "kernel_size": 3,
    "normalization": "none",
    "feature_map": "linear",
}
PIXEL = MAP | {
    "filters": (16, 32, 64),
    "kernel_size": (3, 3, 7),
    "strides": (2, 2, 1),
    "padding": (1, 1, 0),
}
PROGRAMS = {
    "1": Program(p.Examples, "pytorch_examples", 20, {"hidden": (400,)}),
    "2": Program(
        lambda: p.VAE(p.Encoder2(), p.Decoder2()),
        "encoder_decoder",
        20,
        {"hidden": (400,)},
    ),
    "3": Program(
        lambda: p.VAE(p.Encoder3(), p.Decoder3()),
        "conv_dense",
        16,
        {"filters": (32, 64), "kernel_size": 4, "hidden": (256,)},
    ),
    "3, kernel 3": Program(
        lambda: p.VAE(p.Encoder3(kernel=3), p.Decoder3(kernel=3)),
        "conv_dense",
        16,
        {"hidden": (256,)} | KERNEL_3,
    ),
    "3, no ReLU": Program(
        lambda: p.VAE(p.Encoder3Mean(), p.Decoder3NoReLU()),
        "conv_dense",
        16,
        {"hidden": (256,), "decoder_hidden": (), "before_reshape": "none"} | KERNEL_3,
        prints_own_names=False,
    ),
    "4": Program(
        lambda: p.VAE(p.Encoder4(), p.Decoder4()),
        "encoder_decoder_out",
        2,
        {"hidden": (256,)},
    ),
    "5": Program(p.Sequential5, "sequential", 16, {"hidden": (512, 256)}),
    "6": Program(p.Conv6, "sequential_conv", 32, THREE),
    "6, no bias": Program(
        functools.partial(p.Conv6, bias=False),
        "sequential_conv",
        32,
        THREE | {"biases": None},
    ),
    "6, logits": Program(
        functools.partial(p.Conv6, end=None),
        "sequential_conv",
        32,
        THREE,
        p.bce_with_logits_loss,
    ),
    "6, tanh": Program(
        functools.partial(p.Conv6, end=torch.nn.Tanh),
        "sequential_conv",
        32,
        THREE | DCGAN_ENDS,
        p.mse_loss,
    ),
    "6, BatchNorm1d": Program(
        functools.partial(p.Conv6, bias=False, dense_norm=True),
        "sequential_conv",
        32,
        THREE | {"before_reshape": "normalization", "biases": "dense"},
        prints_own_names=False,
    ),
    "6, BatchNorm1d and biases": Program(
        functools.partial(p.Conv6, dense_norm=True),
        "sequential_conv",
        32,
        THREE | {"before_reshape": "normalization"},
        prints_own_names=False,
    ),
    "6, dense": Program(
        p.Sequential6, "sequential", 10, {"hidden": (256, 64)} | BATCH_NORM
    ),
    "7": Program(
        lambda: p.VAE(p.Encoder7(), p.Decoder2()),
        "encoder_decoder_mu",
        20,
        {"hidden": (400,)},
    ),
    "7, one class": Program(p.Flat7, "flat", 20, {"hidden": (400,)}),
    "8": Program(
        lambda: p.VAE(p.Encoder8(), p.Decoder8()), "conv_layers", 20, KERNEL_3
    ),
    "9": Program(
        p.Autoencoder9, "autoencoder", 32, {"hidden": (256, 128, 64)}, p.mse_loss
    ),
    "9, conv": Program(
        p.ConvAutoencoder9,
        "autoencoder",
        64,
        {
            "encoder": "conv",
            "padding": 1,
            "filters": (16, 32),
            "kernel_size": 3,
            "before_reshape": "activation",
            "normalization": "none",
        },
        p.mse_loss,
    ),
    "9, map": Program(p.FullyConvAutoencoder9, "autoencoder", None, MAP, p.mse_loss),
    "9, activated map": Program(
        functools.partial(p.FullyConvAutoencoder9, [torch.nn.ReLU()]),
        "autoencoder",
        None,
        MAP | {"feature_map": "activated"},
        p.mse_loss,
    ),
    "9, one pixel": Program(
        p.OnePixelAutoencoder9, "autoencoder", None, PIXEL, p.mse_loss
    ),
}


def constant(loss):
    """-log p(x|z) minus the program's loss, per image: that of a normal density."""
    return 784 * 0.5 * math.log(math.pi) if loss is p.mse_loss else 0.0


def images(seed, count=BATCH):
    """(B, H, W, C), and the same as PyTorch has it."""
    x = np.random.default_rng(seed).random((count, *SHAPE), np.float32)
    return x, torch.from_numpy(x.reshape(count, 1, 28, 28))


def import_program(name):
    """The program after three training steps, its tensors, and the same model here."""
    program = PROGRAMS[name]
    torch.manual_seed(0)
    module = program.build().train()
    for seed in range(3):  # statistics of their own
        module(images(seed)[1])
    model = program.config().build(DataSpec(SHAPE))
    tensors = {n: tensor.clone() for n, tensor in module.state_dict().items()}
    return program, module, tensors, model


class Errors(dict):
    """The largest difference of each kind of number, relative to the largest number."""

    def note(self, what, ours, theirs, scale=1.0):
        theirs = np.asarray(theirs)
        ours = np.asarray(ours).reshape(theirs.shape)
        scale = max(np.abs(theirs).max(), scale)
        error = float(np.abs(ours - theirs).max() / scale)
        self[what] = max(self.get(what, 0.0), error)


def compare(name):
    """The errors of a program's outputs, losses, gradients and running statistics."""
    program, module, tensors, model = import_program(name)
    variables = from_torch(tensors, model, SHAPE, names=program.names)
    export = functools.partial(
        to_torch, model=model, data_shape=SHAPE, names=program.names, like=tensors
    )
    is_vae = ARCHITECTURES[program.names].kind == "vae"
    is_logits = program.loss is p.bce_with_logits_loss
    objective = ELBO() if is_vae else Reconstruction()
    constant = 784 * 0.5 * math.log(math.pi) if program.loss is p.mse_loss else 0.0
    key = jax.random.key(9)  # no unit lies at the kink of its ReLU
    width = program.latent_dim or 1  # autoencoders draw nothing
    draw = jax.random.normal(key, (BATCH, width))  # as the objective's
    draw = torch.from_numpy(np.array(draw))
    errors = Errors()

    @functools.partial(jax.jit, static_argnums=2)
    def step(variables, x, training):
        def loss_fn(params):
            terms, updated = model.apply(
                variables | {"params": params},
                x,
                key=key,
                method=objective,
                mutable=["batch_stats"] if training else [],
            )
            return terms["loss"].mean(), (terms, updated)

        found = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        if training:
            return found
        q = model.apply(variables, x, method="encode")
        return found, (q, model.apply(variables, q.mean, method="decode"))

    def one_step(variables, seed, training):
        """A step of both; the statistics here after it."""
        x, theirs = images(seed)
        found = step(variables, x, training)
        ((loss, (terms, updated)), grads), *_ = (found,) if training else found
        module.zero_grad()
        with p.with_noise(draw):
            recon, *latent = module(theirs)
        rec = program.loss(recon, theirs) / BATCH
        kl = p.kl_loss(*latent) / BATCH if is_vae else torch.zeros(())
        (rec + kl).backward()
        errors.note("loss", loss - constant, (rec + kl).detach())
        errors.note("loss", -terms["log_likelihood"].mean() - constant, rec.detach())
        if is_vae:
            errors.note("loss", terms["kl"].mean(), kl.detach())
        else:
            mean = torch.nn.functional.mse_loss(recon.view(theirs.shape), theirs)
            errors.note("loss", terms["squared_error"].mean(), mean.detach())
        ours = export({"params": grads})
        scale = max(t.grad.abs().max().item() for t in module.parameters())
        for parameter, tensor in module.named_parameters():
            errors.note("gradients", ours[parameter], tensor.grad, scale)
        if not training:
            q, decoded = found[1]
            with torch.no_grad(), p.with_noise(torch.zeros_like(draw)):
                image, *latent = module(theirs)
            image = image.reshape(BATCH, *SHAPE)  # one channel
            errors.note("outputs", decoded.logits if is_logits else decoded.mean, image)
            code = q.mean
            if latent[0].ndim > 2:  # a feature map, (B, C, H, W)
                C, H, W = latent[0].shape[1:]
                code = code.reshape(BATCH, H, W, C).transpose(0, 3, 1, 2)
            errors.note("outputs", code, latent[0])
            if is_vae:
                errors.note("outputs", q.log_var, latent[1])
        return variables | dict(updated)

    module.eval()
    one_step(variables, 9, training=False)
    module.train()
    for seed in (10, 11, 12) if "batch_stats" in variables else ():
        variables = one_step(variables, seed, training=True)
    after = export(variables)
    for buffer, tensor in module.named_buffers():
        errors.note("statistics", after[buffer], tensor, tensor.abs().max().item())
        if buffer.endswith("num_batches_tracked"):
            assert torch.equal(after[buffer], tensor)
    return errors


SLOW = (
    "3, kernel 3",
    "3, no ReLU",
    "6, no bias",
    "6, logits",
    "6, tanh",
    "6, BatchNorm1d and biases",
    "6, dense",
    "8",
    "9, map",
    "9, one pixel",
)
MARKED = [
    pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in PROGRAMS
]


@pytest.mark.parametrize("name", MARKED)
def test_outputs_losses_gradients_and_statistics_are_the_programs(name):
    errors = compare(name)
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_round_trip_is_exact_and_names_are_as_printed(name):
    program, module, tensors, model = import_program(name)
    variables = from_torch(tensors, model, SHAPE, names=program.names)
    export = functools.partial(to_torch, variables, model, SHAPE, names=program.names)
    for back in [export(like=tensors)] + [export()] * program.prints_own_names:
        assert back.keys() == tensors.keys()
        for tensor in tensors:
            assert back[tensor].dtype == tensors[tensor].dtype
            assert torch.equal(back[tensor], tensors[tensor]), tensor
    module.load_state_dict(back)


def stripes(count=192):
    """Images with a bright row, and their rows as labels."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 60, (count, *SHAPE)).astype(np.uint8)
    rows = rng.integers(0, 27, count)
    for image, row in zip(x, rows, strict=True):
        image[row : row + 2] += 180
    return flaxvae.data.from_arrays(x, rows, name="stripes")


def loss_there(program, module, batch):
    """The program's loss, per image."""
    recon, *latent = module(batch)
    loss = program.loss(recon, batch)
    if len(latent) == 2:
        loss = loss + p.kl_loss(*latent)
    return loss / len(batch)


def mean_loss_there(program, module, x):
    """The loss of all images in evaluation, without noise."""
    module.eval()
    with torch.no_grad(), p.with_noise(torch.zeros(len(x), program.latent_dim or 1)):
        return loss_there(program, module, x).item()


def train_on(name):
    """Losses in PyTorch after 50 steps there, and after three epochs more here."""
    program = PROGRAMS[name]
    torch.manual_seed(0)
    module = program.build().train()
    data = stripes()
    x = torch.from_numpy(np.array(data.train.x, np.float32) / 255.0)
    x = x.reshape(-1, 1, 28, 28)
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
    for i in range(50):
        optimizer.zero_grad()
        loss_there(program, module, torch.roll(x, 32 * i, 0)[:32]).backward()
        optimizer.step()
    before = mean_loss_there(program, module, x)
    tensors = module.state_dict()
    model = program.config().build(data)
    trained = Trained(
        model=model,
        variables=from_torch(tensors, model, SHAPE, names=program.names),
        data_shape=data.shape,
        preprocessing=data.preprocessing,
    )
    is_vae = ARCHITECTURES[program.names].kind == "vae"
    run = flaxvae.fit(
        model,
        data,
        objective=ELBO() if is_vae else Reconstruction(),
        start_from=trained,
        epochs=3,
        batch_size=32,
        progress=False,
    )
    names = {"names": program.names, "like": tensors}
    module.load_state_dict(to_torch(run.variables, model, SHAPE, **names))
    return before, mean_loss_there(program, module, x), run.history


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "4" else [pytest.mark.slow]) for n in PROGRAMS],
)
def test_training_goes_on_from_the_imported_weights(name):
    before, after, history = train_on(name)
    assert after < before
    assert history[-1]["train"]["loss"] < history[0]["train"]["loss"]
