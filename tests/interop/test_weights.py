"""Weights from PyTorch and back: the same numbers on both sides."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.interop import from_torch, infer_config, to_torch
from flaxvae.models import build_vae
from flaxvae.models.data_spec import DataSpec
from flaxvae.objectives import ELBO
from tests.random_variables import random_variables

torch = pytest.importorskip("torch")

from experiments.pytorch.networks import TorchVAE, negative_elbo  # noqa: E402

SHAPE = (10, 8, 2)
SMALL = {"filters": (4, 6), "padding": 1}
MODELS = {
    "mlp": {"hidden": (7, 5), "activation": "tanh"},
    "mlp-batchnorm": {"hidden": (7, 5), "normalization": "batch"},
    "conv": {"encoder": "conv", **SMALL},
    "conv-dense": {"encoder": "conv", "hidden": (9,), "kernel_size": 4, **SMALL},
    "conv-batchnorm": {
        "encoder": "conv",
        "normalization": "batch",
        "activation": "leaky_relu",
        "negative_slope": 0.2,
        **SMALL,
    },
    "resnet": {
        "encoder": "resnet",
        "normalization": "batch",
        "activation": "silu",
        "bottleneck": 2,
        "num_residual_blocks": 1,
        **SMALL,
    },
    "conv-mlp": {"encoder": "conv", "decoder": "mlp", "hidden": (7,), **SMALL},
}


def close(a, b, scale=None):
    """To 1e-5, relative to the largest number or to ``scale``."""
    a, b = np.asarray(a), np.asarray(b)
    scale = abs(b).max() if scale is None else scale
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * scale)


def make(name, seed=0):
    """The model and its twin, with PyTorch's initial weights and other statistics."""
    vae = build_vae(SHAPE, 3, **MODELS[name])
    torch.manual_seed(seed)
    twin = TorchVAE(vae, SHAPE)
    for tensor in twin.state_dict().values():
        if tensor.ndim == 1:
            tensor.copy_(torch.rand(tensor.shape) + 0.5)
    return vae, twin


def images(x):
    """(B, H, W, C) as PyTorch takes it."""
    return torch.from_numpy(np.array(x)).permute(0, 3, 1, 2).contiguous()


@pytest.mark.parametrize(
    ("name", "training"),
    # Without normalization training computes what an evaluation does.
    [(name, False) for name in MODELS]
    + [(name, True) for name in MODELS if "normalization" in MODELS[name]],
)
def test_outputs_losses_and_gradients_are_pytorchs(key, name, training):
    vae, twin = make(name)
    twin.train(training)
    variables = from_torch(twin.state_dict(), vae, SHAPE)
    x = jax.random.uniform(key, (6, *SHAPE))
    mutable = ["batch_stats"] if training else []

    @jax.jit
    def ours(params, key):
        def loss(params):
            terms, updated = vae.apply(
                variables | {"params": params},
                x,
                key=key,
                method=ELBO(),
                mutable=mutable,
            )
            return terms["loss"].mean(), (terms, updated)

        return jax.value_and_grad(loss, has_aux=True)(params)

    (loss, (terms, updated)), grads = ours(variables["params"], key)
    eps = np.array(jax.random.normal(key, (6, 3)))  # what reparameterize draws
    logits, mean, log_var = twin(images(x), torch.from_numpy(eps))
    their_loss = negative_elbo(logits, images(x), mean, log_var)
    their_loss.backward()
    close(loss, their_loss.detach())
    kl = -0.5 * (1 + log_var - mean.square() - log_var.exp()).sum(1)
    close(terms["kl"], kl.detach())
    close(terms["log_likelihood"].mean(), (kl.mean() - their_loss).detach())
    ours_as_theirs = to_torch({"params": grads}, vae, SHAPE)
    scale = max(tensor.grad.abs().max() for tensor in twin.parameters())
    for parameter, tensor in twin.named_parameters():
        close(ours_as_theirs[parameter], tensor.grad, scale.item())
    if training:
        after = to_torch(variables | dict(updated), vae, SHAPE)
        for buffer, tensor in twin.state_dict().items():
            if buffer.endswith("running_mean"):
                close(after[buffer], tensor)
        return
    q, p = jax.jit(
        lambda v, x, z: (
            vae.apply(v, x, method="encode"),
            vae.apply(v, z, method="decode"),
        )
    )(variables, x, jnp.asarray(mean.detach()))
    close(q.mean, mean.detach())
    close(q.log_var, log_var.detach())
    decoded = twin.decoder(mean).detach().permute(0, 2, 3, 1)
    close(p.logits, decoded)


@pytest.mark.parametrize("name", MODELS)
def test_the_round_trip_is_exact(name):
    vae, twin = make(name)
    before = {n: t for n, t in twin.state_dict().items() if "num_batches" not in n}
    after = to_torch(from_torch(before, vae, SHAPE), vae, SHAPE)
    assert {n for n in after if "num_batches" not in n} == before.keys()
    for tensor in before:
        assert torch.equal(before[tensor], after[tensor]), tensor
    twin.load_state_dict(after)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_files_are_read(tmp_path, suffix):
    vae, twin = make("mlp")
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(twin.state_dict(), path)
    else:
        from safetensors.torch import save_file

        save_file(twin.state_dict(), path)
    variables = from_torch(path, vae, SHAPE)
    expected = from_torch(twin.state_dict(), vae, SHAPE)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, expected))


def test_convolutions_of_series_are_torchs_conv1d(key):
    vae = build_vae((11, 2), 3, encoder="conv", hidden=(5,), **SMALL)
    x = jax.random.normal(key, (4, 11, 2))
    variables = random_variables(vae, x, key=key, method=ELBO())
    tensors = to_torch(variables, vae, (11, 2))
    h = torch.from_numpy(np.array(x)).transpose(1, 2)
    functional = torch.nn.functional
    for i in range(2):
        weights = (tensors[f"encoder.conv_{i}.{name}"] for name in ("weight", "bias"))
        h = functional.conv1d(h, *weights, stride=2, padding=1).relu()
    weights = (tensors[f"encoder.hidden_0.{name}"] for name in ("weight", "bias"))
    h = functional.linear(h.flatten(1), *weights).relu()
    encode = functools.partial(vae.apply, method=lambda vae, x: vae.encoder(x))
    features = jax.jit(encode)(variables, x)
    np.testing.assert_allclose(features, h.numpy(), rtol=1e-4, atol=1e-5)
    back = from_torch(tensors, vae, (11, 2))
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, back))


class Evil:
    def __reduce__(self):
        return print, ("pickled code has run",)


def test_files_that_are_not_tensors_are_refused(tmp_path, capsys):
    vae, _ = make("mlp")
    evil = tmp_path / "evil.pt"
    torch.save({"encoder.hidden_0.weight": Evil()}, evil)
    short = tmp_path / "short.safetensors"
    short.write_bytes(b"abc")
    for path, message in (
        (evil, "weights must hold tensors, got"),
        (short, "weights must be a state dict of tensors, got"),
        (tmp_path / "none.pt", "weights must be a file, got"),
        (tmp_path, "which is a folder"),
    ):
        with pytest.raises(InputError, match=message) as error:
            from_torch(path, vae, SHAPE)
        assert len(str(error.value).splitlines()) == 1
    assert "pickled code has run" not in capsys.readouterr().out


def test_every_mismatch_is_listed():
    vae, twin = make("mlp")
    tensors = dict(twin.state_dict())
    del tensors["encoder.hidden_1.bias"], tensors["decoder.output.weight"]
    tensors["classifier.weight"] = torch.zeros(2, 3)
    tensors["encoder.hidden_0.weight"] = torch.zeros(7, 5)
    with pytest.raises(InputError) as error:
        from_torch(tensors, vae, SHAPE)
    assert str(error.value) == (
        "the tensors must be the model's; missing: decoder.output.weight (160, 7), "
        "encoder.hidden_1.bias (5,); surplus: classifier.weight (2, 3); of another "
        "shape: encoder.hidden_0.weight (7, 5) in place of (7, 160)"
    )


def test_gated_layers_are_those_of_pytorch():
    vae = build_vae((4,), 2, hidden=(6,), activation="glu", likelihood="bernoulli")
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(4, 12), torch.nn.GLU())
    heads = {"mu": torch.nn.Linear(6, 2), "logvar": torch.nn.Linear(6, 2)}
    decoder = torch.nn.Sequential(
        torch.nn.Linear(2, 12), torch.nn.GLU(), torch.nn.Linear(6, 4)
    )
    parts = {"encoder": encoder, **heads, "decoder": decoder}
    state = torch.nn.ModuleDict(parts).state_dict()
    names = {
        "encoder.hidden_0": "encoder.0",
        "posterior.mean_and_log_var": ["mu", "logvar"],
        "decoder.hidden_0": "decoder.0",
        "decoder.output": "decoder.2",
    }
    variables = from_torch(state, vae, (4,), names=names)
    x = np.random.default_rng(0).random((3, 4), np.float32)

    def both(vae, x):
        q = vae.encode(x)
        return q, vae.decode(q.mean)

    q, p = jax.jit(functools.partial(vae.apply, method=both))(variables, x)
    with torch.no_grad():
        mean = heads["mu"](encoder(torch.from_numpy(x)))
        logits = decoder(mean)
    close(q.mean, mean)
    close(p.logits, logits)
    with pytest.raises(InputError, match="activation must not be glu where widths"):
        infer_config(state, (4,), activation="glu")
    config = infer_config(state, (4,), activation="glu", hidden=(6,))
    assert config.build(DataSpec((4,))).encoder == vae.encoder
