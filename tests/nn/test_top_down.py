"""The convolutional network of levels against loops in numpy, and its identities."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flaxvae.checks import InputError
from flaxvae.collectives import DATA_AXIS
from flaxvae.distributions.levels import Codes
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, StandardNormal
from flaxvae.nn.likelihoods import DiscretizedLogisticMixtureHead
from flaxvae.nn.priors import TopVampPrior
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.nn.top_down_blocks import enlarge, fold, grid_sizes, pool, unfold
from flaxvae.objectives import ELBO, IWAE
from flaxvae.training import fit
from tests.random_variables import random_variables

SHAPE = (7, 5, 1)
TINY = {"blocks": (2, 2, 1), "widths": (4, 5, 4), "bottleneck": 2, "latent_channels": 2}
GRIDS = ((1, 1), (4, 3), (7, 5))
EVENTS = [(2,), (1, 1, 2), (4, 3, 2), (4, 3, 2)]  # of the levels of `passes`


def build(shape=SHAPE, head=None, top=StandardNormal, **choices):
    head = head or BernoulliHead()
    is_mixture = isinstance(head, DiscretizedLogisticMixtureHead)
    output_shape = head.feature_shape(shape) if is_mixture else shape
    network = TopDownLevels(output_shape, **{**TINY, **choices})
    return HierarchicalVAE(network, top(network.top_dim), head)


def initialize(model, x):
    """Parameters away from their start, at which posteriors equal priors."""
    return random_variables(model, x, method=lambda m, x: m.encode(x).draw(None))


def make_bits(seed, *shape):
    return np.random.default_rng(seed).integers(0, 2, shape).astype(np.float32)


X = make_bits(3, 8, *SHAPE)
ROWS = make_bits(4, 8, 4, 3, 1)


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture(scope="module")
def variables(model):
    return initialize(model, X)


@pytest.fixture(scope="module")
def passes():
    """Three draws of each level, and what other passes compute from them."""
    model = build((4, 3, 1), blocks=(2, 2), encoder_blocks=(0, 1), widths=(4, 5))

    def run(m, key, three):
        q = m.encode(ROWS)
        drawn = q.draw(key, (3,))
        return {
            "drawn": drawn,
            "at": q.at(drawn.z),
            "log_prior": m.prior().log_prob(drawn.z),
            "cached": m.decode(drawn).logits,
            "decoded": m.decode(Codes(drawn.z.levels)).logits,
            "kept": m.prior().sample(key, (3, 8), given=drawn.z.levels[:3]),
            "kept_of_all": m.prior().sample(
                key, (3, 8), given=drawn.z.levels, kept=three
            ),
            "samples": samples(m),
        }

    def samples(m):
        """Two without noise, each by a key of its own, and one."""

        def sample(key, temperature):
            return m.prior().sample(key, (2,), temperature=temperature)

        keys = jax.random.split(jax.random.key(9), 3)
        return jax.vmap(sample)(keys, jnp.array([0.0, 0.0, 1.0])).levels

    key = jax.random.key(1)
    apply = jax.jit(lambda v, three: model.apply(v, key, three, method=run))
    variables = initialize(model, ROWS)
    # Means of zero, variances of one: a draw is its noise.
    still = apply(jax.tree.map(np.zeros_like, variables), 3)["drawn"]
    return jax.device_get({**apply(variables, 3), "noise": still.z.levels})


# Grids.


def test_sizes_of_grids_are_halved_down_to_four_and_then_one():
    assert grid_sizes((32, 32)) == ((1, 1), (4, 4), (8, 8), (16, 16), (32, 32))
    assert grid_sizes((64, 8)) == ((1, 1), (4, 1), (8, 1), (16, 2), (32, 4), (64, 8))
    assert grid_sizes((5, 3)) == ((1, 1), (5, 3))
    assert grid_sizes((1, 1)) == ((1, 1),)


@pytest.mark.parametrize(("fine", "coarse"), [((7, 5), (4, 3)), ((4, 3), (1, 1))])
def test_grids_change_their_size_as_loops_over_places_say(fine, coarse):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *fine, 3)).astype(np.float32)
    y = rng.normal(size=(2, *coarse, 3)).astype(np.float32)
    down, right = (-(-n // m) for n, m in zip(fine, coarse, strict=True))

    @jax.jit
    def change(x, y):
        folded = fold(x, coarse)
        return pool(x, coarse), folded, unfold(folded, fine), enlarge(y, fine)

    pooled, folded, unfolded, enlarged = map(np.asarray, change(x, y))
    for i in range(coarse[0]):
        for j in range(coarse[1]):
            part = x[:, i * down : (i + 1) * down, j * right : (j + 1) * right]
            np.testing.assert_allclose(pooled[:, i, j], part.mean((1, 2)), rtol=1e-5)
            place = folded[:, i, j].reshape(2, down, right, 3)
            h, w = part.shape[1:3]
            np.testing.assert_array_equal(place[:, :h, :w], part)
            assert not place[:, h:].any() and not place[:, :, w:].any()
    for i in range(fine[0]):
        for j in range(fine[1]):
            at = y[:, i // down, j // right]
            np.testing.assert_array_equal(enlarged[:, i, j], at)
    np.testing.assert_array_equal(unfolded, x)


@pytest.mark.parametrize(
    ("shape", "head", "blocks"),
    [
        ((28, 28, 1), BernoulliHead(), (1, 2, 2)),
        ((32, 32, 3), DiscretizedLogisticMixtureHead(), (2, 1)),
        ((13, 9, 3), BernoulliHead(), (1, 2)),
        ((2, 1, 1), BernoulliHead(), (1, 1)),
    ],
)
def test_shapes_of_images_of_any_size(shape, head, blocks, key):
    model = build(shape, head, blocks=blocks, widths=4)

    def run(m, key):
        draws = m.encode(jnp.zeros((4, *shape))).draw(key)
        codes = m.prior().sample(key, (4,))
        return draws, codes, m.decode(codes).mean

    init = functools.partial(model.init_with_output, method=run)
    (draws, codes, mean), _ = jax.eval_shape(init, key, key)
    sizes = grid_sizes(shape[:2])
    grids = [g for g, n in zip(sizes, blocks, strict=False) for _ in range(n)]
    assert draws.z.levels[0].shape == (4, 2)
    for z in (draws.z, codes):
        assert [a.shape for a in z.levels[1:]] == [(4, *g, 2) for g in grids[1:]]
    assert mean.shape == (4, *shape)
    assert draws.kl.shape == draws.log_q.shape == draws.log_p.shape == (len(grids), 4)
    assert [a.shape for a in draws.kl_per_dimension] == [(4, 2)] * len(grids)


# Passes.


def test_densities_of_draws_are_those_at_given_codes(passes):
    drawn, at = passes["drawn"], passes["at"]
    assert [z.shape for z in drawn.z.levels] == [(3, 8, *event) for event in EVENTS]
    for name in ("log_q", "log_p", "kl"):
        a, b = getattr(drawn, name), getattr(at, name)
        assert a.shape == (4, 3, 8)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    expected = drawn.log_p.sum(0)
    np.testing.assert_allclose(passes["log_prior"], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(passes["cached"], passes["decoded"], atol=1e-5)
    sums = [parts.sum(-1) for parts in drawn.kl_per_dimension]
    for level, total in enumerate(sums):
        full = np.broadcast_to(total, drawn.kl[level].shape)
        np.testing.assert_allclose(drawn.kl[level], full, rtol=1e-5, atol=1e-6)


def test_draws_differ_between_levels_examples_and_repetitions(passes):
    noise = [z.reshape(3, 8, -1)[..., 0] for z in passes["noise"]]
    assert len(np.unique(np.stack(noise))) == 4 * 3 * 8


def test_given_levels_are_kept_and_the_others_drawn(passes):
    drawn, kept = passes["drawn"].z.levels, passes["kept"].levels
    for level in range(3):  # one of the two blocks on the second grid
        np.testing.assert_array_equal(kept[level], drawn[level])
    assert np.abs(kept[3] - drawn[3]).min() > 0
    for a, b in zip(passes["kept_of_all"].levels, passes["kept"].levels, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    for cold, again, _ in passes["samples"]:
        np.testing.assert_array_equal(cold, again)
    cold, _, prior = passes["samples"][3]
    assert np.abs(prior - cold).max() > 0.1


def test_kl_of_each_level_is_the_mean_of_its_draws(small):
    K = 3000

    def run(m, key):
        draws = m.encode(ROWS[:2]).draw(key, (K,))
        return draws.log_q - draws.log_p, draws.kl

    key, model = jax.random.key(5), build_small()
    ratio, kl = jax.jit(lambda v: model.apply(v, key, method=run))(small)
    difference = np.asarray(ratio - kl, np.float64)  # (L, K, B)
    error = difference.std(1) / np.sqrt(K)
    assert (np.asarray(kl).mean(1) > 0.01).all()
    assert (np.abs(difference.mean(1)) < 4.5 * error).all()
    assert (error < 0.1 * np.asarray(kl).mean(1) + 0.05).all()


def test_posteriors_start_equal_to_priors(key):
    model = build((4, 3, 1), blocks=(1, 1), widths=4, encoder_blocks=(0, 0))

    def run(m, x):
        draws = m.encode(x).draw(key)
        return draws.kl, draws.log_q, draws.log_p

    init = functools.partial(model.init_with_output, method=run)
    kl, log_q, log_p = jax.jit(lambda: init(key, ROWS)[0])()
    np.testing.assert_allclose(kl, 0.0, atol=1e-6)
    np.testing.assert_allclose(log_q, log_p, rtol=1e-6)


# The same network in numpy.


def silu(x):
    return x / (1 + np.exp(-x))


def dense(p, x):
    return x @ p["kernel"] + p.get("bias", 0.0)


def convolve(p, x):
    """3x3, or 1x1 on small grids, zeros beyond the edges."""
    if p["kernel"].ndim == 2:
        return dense(p, x)
    _, H, W, _ = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [
        padded[:, i : i + H, j : j + W] @ p["kernel"][i, j]
        for i in range(3)
        for j in range(3)
    ]
    return sum(taps) + p["bias"]


def bottleneck(p, *activated):
    h = sum(dense(p[f"enter_{i}"], x) for i, x in enumerate(activated))
    h = convolve(p["middle_1"], silu(convolve(p["middle_0"], silu(h))))
    outputs = [name for name in sorted(p) if name.startswith("leave")]
    return [dense(p[name], silu(h)) for name in outputs]


def residual(p, h):
    return h + bottleneck(p["bottleneck"], silu(h))[0]


def std(raw):
    return np.log2(1 + 2.0**raw)  # softplus(raw log 2) / log 2


def resize(change, x, size):
    return np.asarray(jax.jit(change, static_argnums=1)(x, size))


def expected_pass(p, x):
    """Means of all levels, the KL of each, and logits, in float64."""
    counts = (1, 2, 1)  # blocks of a loop on each grid

    def part(name, i):
        return jax.tree.map(lambda a: a[i], p[name])

    h, features = convolve(p["enter"], x), {}
    for i in (2, 1, 0):
        for j in range(TINY["blocks"][i]):
            h = residual(part(f"up_{i}", j), h)
        features[i] = silu(h)
        if i:
            h = dense(p[f"up_widths_{i - 1}"], resize(pool, h, GRIDS[i - 1]))

    mean, raw = bottleneck(p["top_posterior_net"], features[0])
    levels, kl = [mean], [0.5 * (std(raw) ** 2 + mean**2 - 1) - np.log(std(raw))]
    h = residual(p["top_residual"], p["bias_0"] + dense(p["top_project"], mean))
    for i, grid in enumerate(GRIDS):
        if i:
            h = resize(enlarge, dense(p[f"down_widths_{i - 1}"], h), grid)
            h = h + p[f"bias_{i}"]
        for j in range(counts[i]):
            q = part(f"down_{i}", j)
            p_mean, p_raw, change = bottleneck(q["prior"], silu(h))
            delta, factor = bottleneck(q["posterior"], silu(h), features[i])
            ratio = std(factor)
            distance = (delta / std(p_raw)) ** 2
            kl.append(0.5 * (ratio**2 + distance - 1) - np.log(ratio))
            levels.append(p_mean + delta)
            h = residual(q["residual"], h + change + dense(q["project"], levels[-1]))
    logits = convolve(p["output"], silu(h))
    return levels, [k.sum((1, 2, 3)) for k in kl], logits


def test_a_pass_is_that_of_loops_over_blocks(model, variables):
    """Each block has its own parameters, in the order of the levels."""

    def run(m, x):
        mean = m.encode(x).draw(None)
        return mean, m.decode(Codes(mean.z.levels)).logits

    mean, decoded = jax.jit(lambda v: model.apply(v, X, method=run))(variables)
    as_float64 = jax.tree.map(np.float64, variables)
    expected = expected_pass(as_float64["params"]["network"], np.float64(X))
    levels, kl, logits = expected
    for found, wanted in zip(mean.z.levels, levels, strict=True):
        np.testing.assert_allclose(found, wanted.reshape(found.shape), atol=2e-4)
    np.testing.assert_allclose(mean.kl, np.stack(kl), rtol=1e-3, atol=1e-3)
    for output in (mean.output, decoded):
        np.testing.assert_allclose(output, logits, atol=1e-3)


# Gradients and programs.


def losses_of(model, v, x):
    objective, key = IWAE(num_samples=2), jax.random.key(6)
    return model.apply(v, x, key=key, method=objective)["loss"]


def build_small(**choices):
    """Three levels on two grids, which compile quickly."""
    choices = {"blocks": (1, 2), "encoder_blocks": (0, 2), "widths": 4, **choices}
    return build((4, 3, 1), **choices)


@pytest.fixture(scope="module")
def small():
    return initialize(build_small(), ROWS)


@pytest.fixture(scope="module")
def losses(small):
    """Of each example, on one device."""
    compute = functools.partial(losses_of, build_small())
    return np.asarray(jax.jit(compute)(small, ROWS))


def test_no_two_biases_are_added_to_one_state(variables):
    params = variables["params"]["network"]
    assert {"bias_0", "bias_1", "bias_2"} < params.keys()
    for name in ("top_project", "down_widths_0", "down_widths_1"):
        assert params[name].keys() == {"kernel"}


def test_gradient_of_recomputed_blocks_is_that_of_finite_differences(small):
    """Differences of the loss without recomputation."""
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, small)
        direction = jax.tree.map(np.cos, wide)

        def along(s, remat):
            v = jax.tree.map(lambda a, d: a + s * d, wide, direction)
            model = build_small(dtype=None, remat=remat)
            return losses_of(model, v, np.float64(ROWS)).mean()

        compute = jax.jit(functools.partial(along, remat=False))
        step = 1e-5
        above, below, value = map(compute, (step, -step, 0.0))
        assert above.dtype == jnp.float64
        recompute = jax.jit(jax.value_and_grad(functools.partial(along, remat=True)))
        again, slope = recompute(0.0)
        np.testing.assert_allclose(again, value, rtol=1e-9)
        np.testing.assert_allclose((above - below) / (2 * step), slope, rtol=1e-6)
        assert "prevent_cse=False" in str(recompute.trace(0.0).jaxpr)


def test_the_program_does_not_grow_with_depth():
    def count(blocks):
        model = build_small(blocks=blocks, encoder_blocks=blocks)
        gradient = jax.grad(lambda v: losses_of(model, v, ROWS).mean())
        program = jax.make_jaxpr(gradient)(initialize(model, ROWS))
        # Each level's codes are cut out of those of its group.
        cuts = ("= split[", "= squeeze[", "= slice[")
        lines = str(program).splitlines()
        return sum(" = " in line and not any(c in line for c in cuts) for line in lines)

    assert count((1, 2)) == count((1, 8))


def test_eight_devices_compute_what_one_does(small, losses):
    """The loss of each example; its gradient is that of one device."""
    compute = functools.partial(losses_of, build_small())
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (DATA_AXIS,))
    split = jax.device_put(ROWS, NamedSharding(mesh, PartitionSpec(DATA_AXIS)))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=2e-4)
    close(jax.jit(compute)(small, split), losses)
    mapped = jax.pmap(compute, DATA_AXIS, in_axes=(None, 0))(small, ROWS[:, None])
    close(mapped[:, 0], losses)


def test_bfloat16_keeps_densities_in_float32(small, key):
    model = build_small(dtype="bfloat16")
    draws = jax.eval_shape(
        lambda v: model.apply(v, ROWS, method=lambda m, x: m.encode(x).draw(key)),
        small,
    )
    assert draws.output.dtype == jnp.bfloat16
    arrays = [draws.kl, draws.log_q, draws.log_p, *draws.z.levels]
    assert {a.dtype for a in arrays} == {jnp.dtype("float32")}


def test_a_vamp_prior_mixes_posteriors_of_the_top_level(key):
    def top(D):
        return TopVampPrior(data_shape=SHAPE, num_components=3)

    model = build(top=top, blocks=(1,), widths=4)
    draws = jax.jit(
        lambda v: model.apply(v, X, method=lambda m, x: m.encode(x).draw(key))
    )(initialize(model, X))
    np.testing.assert_allclose(draws.kl[0], draws.log_q[0] - draws.log_p[0], atol=1e-5)
    assert draws.kl_per_dimension[0] is None


def test_it_is_trained_like_any_model(stripes):
    choices = {"blocks": (1, 2), "encoder_blocks": (0, 1), "widths": 4}
    grids = ((1, 1), (2, 2))  # kernels 1x1, which compile in less time
    network = TopDownLevels((4, 4, 1), **TINY | choices, grids=grids)
    model = HierarchicalVAE(network, StandardNormal(2), BernoulliHead())
    trained = fit(
        model, stripes, epochs=2, batch_size=15, learning_rate=5e-3, progress=False
    )
    first, last = (r["validation"]["elbo"] for r in trained.history)
    assert last > first
    described = trained.history[-1]["codes"]
    assert len(described["kl_per_level"]) == 3


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"blocks": (1, 1, 1, 1)}, "blocks must have a number for each grid, 1 to 3 "),
        ({"blocks": ()}, "blocks must have a number for each grid, 1 to 3 "),
        ({"blocks": (1, 0, 1)}, "blocks must be >= 1, got 0"),
        ({"widths": (4, 4)}, "widths must have a number for each of 3 groups"),
        ({"widths": 0}, "widths must be >= 1, got 0"),
        ({"latent_channels": 0}, "latent_channels must be >= 1, got 0"),
        ({"encoder_blocks": (1,)}, "encoder_blocks must have a number for each of 3"),
        ({"bottleneck": 0}, "bottleneck must be >= 1, got 0"),
        ({"activation": "glu"}, "activation must keep the number of channels, got glu"),
        ({"activation": "sine"}, "unknown activation 'sine'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"grids": ((1, 1), (5, 4), (7, 5))}, "grids must be sizes of the next grid"),
        ({"grids": ((1, 1),)}, "blocks must have a number for each grid, 1 of them"),
    ],
)
def test_an_invalid_field_is_refused_by_name(choices, message, key):
    model = build(**choices) if choices.get("blocks") != () else None
    if model is None:
        model = HierarchicalVAE(
            TopDownLevels(SHAPE, ()), StandardNormal(2), BernoulliHead()
        )
    with pytest.raises(InputError, match=message):
        jax.eval_shape(
            lambda: model.init(key, jnp.zeros((2, *SHAPE)), key=key, method=ELBO())
        )
    with pytest.raises(InputError, match="examples must be images"):
        TopDownLevels((5,)).check()
