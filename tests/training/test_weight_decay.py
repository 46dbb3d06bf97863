"""Weight decay reaches the kernels of every module, and nothing else."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxvae.models import CodePrior, build_classifier, build_vae, build_vqvae
from flaxvae.models.variables import variable_shapes
from flaxvae.objectives.factor import with_critic
from flaxvae.training import build_optimizer
from flaxvae.training.optimizers import OPTIMIZERS, freeze

SHAPE, DECAY = (4, 4, 1), 0.25
SMALL = {"hidden": (4,)}
CONV = {"filters": (3,), "normalization": "batch"}


def vae(**choices):
    return build_vae(SHAPE, 2, **{**SMALL, **choices})


MODELS = {
    "mlp": lambda: vae(posterior="diagonal"),
    "conv": lambda: vae(encoder="conv", **CONV),
    "resnet": lambda: vae(encoder="resnet", num_residual_blocks=1, **CONV),
    "mixture": lambda: vae(prior="mixture", prior_components=3),
    "vamp": lambda: vae(prior="vamp", prior_components=3),
    "coupling prior": lambda: vae(prior="flow"),
    "conditional prior": lambda: vae(
        prior="conditional", conditional="embedding", num_classes=3
    ),
    "film": lambda: vae(conditional="film", num_classes=3),
    "full": lambda: vae(posterior="full"),
    "iaf": lambda: vae(posterior="iaf"),
    "planar": lambda: vae(posterior="planar"),
    "radial": lambda: vae(posterior="radial"),
    "shared scale": lambda: vae(likelihood="normal", scale="shared"),
    "critic": lambda: vae(critic=True),
    "codebook by gradients": lambda: build_vqvae(
        SHAPE, encoder="conv", filters=(3,), num_codes=5, codebook="gradient"
    ),
    "code prior": lambda: CodePrior(
        5, columns=2, num_classes=3, width=8, num_layers=1, num_heads=2
    ),
    "classifier": lambda: build_classifier("mlp", 3, hidden=(4,)),
}
NOT_KERNELS = {  # matrices that the number of their axes does not tell apart
    "mixture": {"prior/mean", "prior/log_var"},
    "vamp": {"prior/pseudo_inputs"},
    "codebook by gradients": {"quantizer/codes"},
    "code prior": {"places", "1_back/embedding"},
}
KERNELS = {
    "coupling prior": {"prior/flow_0_kernel_in", "prior/flow_3_kernel_out"},
    "code prior": {"attention_0/query/kernel", "attention_0/out/kernel"},
}


def params_of(name):
    """Random parameters by their path, no entry 0."""
    model = MODELS[name]()
    if name == "code prior":
        x = jnp.zeros((1, 4), jnp.int32)
        like = jax.eval_shape(model.init, jax.random.key(0), x, jnp.zeros(1, jnp.int32))
    elif name == "classifier":
        x = jnp.zeros((1, *SHAPE))
        like = jax.eval_shape(model.init, jax.random.key(0), x)
    else:
        like = variable_shapes(model, SHAPE)
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.uniform(1.0, 2.0, leaf.shape).astype(leaf.dtype),
        like["params"],
    )


def by_path(tree):
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def decay_once(optimizer, params):
    """The parameters after a step whose gradient is 0."""
    zeros = jax.tree.map(np.zeros_like, params)
    return jax.tree.map(
        np.add, by_path(params), by_path(update(optimizer, zeros, params))
    )


def update(optimizer, grads, params):
    """The first update, in one compiled call."""
    return jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(
        grads, params
    )


@pytest.mark.parametrize("name", MODELS)
def test_exactly_the_kernels_decay(name):
    params = params_of(name)
    before = by_path(params)
    after = decay_once(build_optimizer("sgd", 1.0, weight_decay=DECAY), params)
    named = {p for p in before if "kernel" in p.rpartition("/")[2].split("_")}
    assert KERNELS.get(name, set()) < named
    assert NOT_KERNELS.get(name, set()) <= before.keys() - named
    for path, value in before.items():
        factor = np.float32(1 - DECAY if path in named else 1.0)
        np.testing.assert_array_equal(after[path], factor * value, err_msg=path)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_under_every_optimizer(name):
    """What is not a kernel moves as without decay, to the bit; a kernel by it alone."""
    params = params_of("mixture")
    grads = jax.tree.map(np.sin, params)
    moved = []
    for decay in (0.0, DECAY):
        optimizer = build_optimizer(name, 0.5, weight_decay=decay, clip_norm=0.5)
        moved.append(by_path(update(optimizer, grads, params)))
    for path, value in by_path(params).items():
        without, having = (each[path] for each in moved)
        if path.endswith("kernel"):
            expected = without - 0.5 * DECAY * value
            np.testing.assert_allclose(having, expected, rtol=1e-5, err_msg=path)
        else:
            np.testing.assert_array_equal(having, without, err_msg=path)


def test_beside_frozen_parts_and_a_critic():
    params = params_of("critic")
    optimizer = build_optimizer("sgd", 1.0, weight_decay=DECAY)
    before = by_path(params)
    after = decay_once(freeze(with_critic(optimizer), ["encoder"]), params)
    assert {path.partition("/")[0] for path in before} > {"encoder", "critic"}
    for path, value in before.items():
        is_kernel = path.endswith("kernel")
        decays = is_kernel and not path.startswith(("encoder", "critic"))
        np.testing.assert_array_equal(after[path], (1 - DECAY * decays) * value)


def test_the_state_is_that_of_an_optimizer_without_names():
    """So that checkpoints of earlier versions can be read."""
    params = params_of("vamp")
    state = jax.eval_shape(build_optimizer("adamw", 0.1).init, params)
    paths = [path for path, _ in jax.tree.leaves_with_path(state)]
    arrays = [jax.tree_util.keystr(p, simple=True, separator="/") for p in paths]
    vectors = sum(leaf.ndim == 1 for leaf in jax.tree.leaves(params))
    others = len(jax.tree.leaves(params)) - vectors
    moments = [path for path in arrays if "/mu/" in path or "/nu/" in path]
    assert len(moments) == 2 * (others + 1)  # all vectors are one array


class Layer(nn.Module):
    """A matrix under another name, and a kernel of one axis."""

    @nn.compact
    def __call__(self, x):
        w = self.param("w", nn.initializers.ones, (2, 2))
        return x @ w + self.param("own_kernel", nn.initializers.ones, (2, 2))


def test_a_matrix_in_a_module_of_ones_own_decays_by_its_name():
    params = Layer().init(jax.random.key(0), jnp.ones((2, 2)))["params"]
    after = decay_once(build_optimizer("sgd", 1.0, weight_decay=DECAY), params)
    np.testing.assert_array_equal(after["w"], 1.0)
    np.testing.assert_array_equal(after["own_kernel"], 1 - DECAY)
