"""Conditional VAEs: conditions reach every part, each example's own only."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import flaxvae
from flaxvae.batch import Batch
from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, Split, condition_on_labels
from flaxvae.evaluation import estimate_nll, evaluate_elbo
from flaxvae.models import build_vae
from flaxvae.models.bind import bind
from flaxvae.nn.conditions import CONDITIONALS
from flaxvae.nn.layers import FiLM
from flaxvae.objectives import ELBO, OBJECTIVES
from flaxvae.training import Engine, fit
from flaxvae.training.optimizers import adam
from tests.latent import untrained
from tests.random_variables import random_variables

SHAPE = (8, 8, 1)
X = np.random.default_rng(0).random((4, *SHAPE), np.float32)
LABELS = np.array([0, 1, 2, 1], np.int32)
BATCH = Batch(X, condition=LABELS)


def under_batch(objective, key):
    """The objective as a function of a model and a batch."""
    return lambda model, batch: objective(*bind(model, batch), key=key)


def build(conditional="concat", **settings):
    settings = {"num_classes": 3, "hidden": (8,), **settings}
    if settings.get("encoder") == "resnet":
        settings |= {"num_residual_blocks": 1}
    return build_vae(SHAPE, 2, conditional=conditional, **settings)


def init(vae):
    """Variables off their initial values, which ignore the condition."""
    return random_variables(vae, BATCH, method=under_batch(ELBO(), jax.random.key(0)))


SLOW = pytest.mark.slow  # what a sibling covers


@pytest.mark.parametrize(
    ("encoder", "conditional"),
    [
        ("mlp", "concat"),
        pytest.param("mlp", "film", marks=SLOW),
        ("conv", "concat"),
        pytest.param("resnet", "film", marks=SLOW),
        pytest.param("mlp", "embedding", marks=SLOW),
        pytest.param("conv", "film", marks=SLOW),
        pytest.param("resnet", "concat", marks=SLOW),
    ],
)
def test_a_condition_changes_encoder_decoder_and_prior(encoder, conditional):
    vae = build(conditional, encoder=encoder, prior="conditional")
    variables = init(vae)

    @jax.jit
    def parts(labels):
        def method(vae):
            given = vae.given(labels)
            z = jnp.zeros((4, 2))
            return given.encode(X).mean, given.decode(z).logits, given.prior().mean

        return vae.apply(variables, method=method)

    before, after = map(jax.device_get, map(parts, (LABELS, np.array([0, 2, 2, 1]))))
    for a, b in zip(before, after, strict=True):
        assert np.abs(a[1] - b[1]).max() > 1e-4  # the example whose class is another
        np.testing.assert_array_equal(a[::2], b[::2])


@pytest.mark.parametrize("conditional", CONDITIONALS)
def test_gradients_reach_what_reads_the_condition(conditional, key):
    vae = build(conditional, prior="conditional")
    variables = init(vae)

    def loss(params):
        method = under_batch(ELBO(), key)
        terms = vae.apply({"params": params}, BATCH, method=method)
        return terms["loss"].mean()

    grads = jax.device_get(jax.jit(jax.grad(loss))(variables["params"]))
    assert np.abs(grads["prior"]["moments"]["kernel"]).max() > 0
    if conditional == "concat":
        kernels = [grads[part]["hidden_0"]["kernel"] for part in ("encoder", "decoder")]
        for kernel in kernels:
            assert (np.abs(kernel[-3:]).max(axis=1) > 0).all()  # one row a class
    else:
        assert (np.abs(grads["condition"]["embedding"]["kernel"]).max(axis=1) > 0).all()


def test_film_scales_and_shifts_each_feature():
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    condition = np.array([[1], [2]], np.float32)
    kernel = np.array([[1, 2, 0, 5, 0, -1]], np.float32)  # three scales, three shifts
    layer = {"scale_and_shift": {"kernel": kernel, "bias": np.zeros(6, np.float32)}}
    y = jax.jit(FiLM().apply)({"params": layer}, x, condition)
    scale, shift = np.array([1.0, 2.0, 0.0]), np.array([5.0, 0.0, -1.0])
    expected = [x[0] * (1 + scale) + shift, x[1] * (1 + 2 * scale) + 2 * shift]
    np.testing.assert_allclose(y, expected, rtol=1e-5)


def test_film_without_its_scale_and_shift_is_the_plain_network(key):
    vae, plain = build("film"), build_vae(SHAPE, 2, hidden=(8,))
    method = under_batch(ELBO(), key)
    init = jax.jit(lambda: vae.init_with_output(key, BATCH, method=method))
    modulated, variables = init()
    params = {k: v for k, v in variables["params"].items() if k != "condition"}
    films = [part for part in ("encoder", "decoder") if "hidden_0_film" in params[part]]
    assert films == ["encoder", "decoder"]
    for part in films:
        params[part] = {k: v for k, v in params[part].items() if k != "hidden_0_film"}
    apply = jax.jit(lambda p: plain.apply({"params": p}, X, key=key, method=ELBO()))
    np.testing.assert_allclose(modulated["loss"], apply(params)["loss"], rtol=1e-5)


def test_several_codes_of_each_example_keep_its_condition():
    vae = build()
    variables = init(vae)
    z = np.random.default_rng(0).normal(size=(5, 4, 2)).astype(np.float32)

    def method(vae, z):
        return vae.given(LABELS).decode(z).logits

    decode = jax.jit(functools.partial(vae.apply, variables, method=method))

    each = np.stack([decode(codes) for codes in z])
    np.testing.assert_allclose(decode(z), each, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "prior"),
    [
        *((name, "conditional") for name in ("iwae", "factor", "info")),
        ("elbo", "vamp"),
        *(
            pytest.param(name, prior, marks=SLOW)
            for name in sorted(OBJECTIVES)
            for prior in ("conditional", "vamp")
        ),
    ],
)
def test_objectives_and_priors_take_conditional_models(name, prior, key):
    vae = build(
        prior=prior,
        prior_components=6 if prior == "vamp" else None,
        critic=name == "factor",
    )
    settings = {"num_examples": 100, "num_samples": 8 if name != "elbo" else 1}
    kind = OBJECTIVES[name]
    fields = {field.name for field in dataclasses.fields(kind)}
    chosen = kind(**{n: value for n, value in settings.items() if n in fields})
    objective = under_batch(chosen, key)
    terms, _ = vae.init_with_output(key, BATCH, method=objective)
    assert terms["loss"].shape == (4,)
    assert np.isfinite(terms["loss"]).all()


def test_a_vamp_prior_encodes_each_pseudo_input_under_its_class():
    """Classes take turns; p(z) is the same whatever the batch is conditioned on."""
    vae = build(prior="vamp", prior_components=7)
    variables = init(vae)
    params = variables["params"]
    params["encoder"]["hidden_0"]["kernel"][-3:] *= 20  # of classes
    u = np.clip(params["prior"]["pseudo_inputs"], 0, 1)
    z = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)

    def both(labels, classes):
        def method(v):
            q = v.given(classes).encode(u)
            return v.given(labels).prior().log_prob(z), q.mean, q.log_var

        return vae.apply(variables, method=method)

    compute = jax.jit(both)
    found, mean, log_var = compute(LABELS, np.array([0, 1, 2, 0, 1, 2, 0], np.int32))
    each = stats.norm.pdf(np.float64(z)[:, None], mean, np.exp(0.5 * log_var)).prod(-1)
    np.testing.assert_allclose(found, np.log(each.mean(1)), rtol=1e-3)
    again, *_ = compute(LABELS[::-1], np.zeros(7, np.int32))
    np.testing.assert_array_equal(again, found)


@pytest.fixture
def labelled(stripes):
    return condition_on_labels(stripes)


def test_training_uses_the_class_and_streams(labelled, tmp_path, key):
    """Given the class, a code of one number is enough to know the bright line."""
    vae = build_vae(
        labelled.shape, 1, hidden=(32,), conditional="concat", num_classes=8
    )
    options = {"optimizer": adam(1e-2), "batch_size": 30, "progress": False}
    trained = fit(vae, labelled, epochs=30, **options, workdir=tmp_path)
    images = trained.sample(16, key=key, condition=np.arange(16) % 8)
    assert images.shape == (16, 4, 4, 1)
    brightness = [images[i].sum(axis=1 if i % 8 < 4 else 0) for i in range(16)]
    assert [int(np.argmax(b)) for b in brightness] == [i % 4 for i in range(16)]
    test = evaluate_elbo(trained, labelled.test)
    assert test["elbo"] > -9.0
    loaded = flaxvae.load(tmp_path)
    for name in ("encode", "reconstruct"):
        both = [
            getattr(t, name)(labelled.test.x, labelled.test.condition)
            for t in (trained, loaded)
        ]
        jax.tree.map(np.testing.assert_array_equal, *both)
    engine = Engine(device_memory_budget=1e4)
    streamed = fit(vae, labelled, epochs=2, **options, engine=engine)
    assert streamed.history == trained.history[:2]


def test_log_likelihood_given_the_condition(labelled):
    labelled = flaxvae.data.binarize(labelled, "threshold")
    labelled = dataclasses.replace(labelled, validation=labelled.validation[:0])
    vae = build_vae(labelled.shape, 2, hidden=(16,), conditional="film", num_classes=8)
    trained = fit(
        vae, labelled, optimizer=adam(1e-2), epochs=20, batch_size=30, progress=False
    )
    nll = estimate_nll(trained, labelled.test, num_samples=300)["nll"]
    bound = -evaluate_elbo(trained, labelled.test)["elbo"]
    assert bound - 2.0 < nll < bound + 0.1
    shifted = Split(labelled.test.x, condition=(labelled.test.condition + 1) % 8)
    assert estimate_nll(trained, shifted, num_samples=300)["nll"] > nll + 1.0


@pytest.mark.slow
def test_vectors_are_conditions_too(stripes, key):
    def tell(split):
        vectors = np.eye(8, dtype=np.float32)[split.labels]
        return Split(split.x, split.labels, condition=vectors)

    splits = {n: tell(getattr(stripes, n)) for n in ("train", "validation", "test")}
    labelled = flaxvae.data.Dataset(
        "stripes", **splits, preprocessing=Preprocessing(max_value=255.0)
    )
    vae = build_vae(
        labelled.shape,
        2,
        hidden=(8,),
        conditional="embedding",
        condition_width=8,
        prior="conditional",
    )
    trained = fit(vae, labelled, epochs=1, batch_size=30, progress=False)
    assert trained.sample(3, key=key, condition=np.eye(8)[:3]).shape == (3, 4, 4, 1)


def test_misuse_is_refused_in_one_line(labelled, stripes, key):
    vae = build_vae(labelled.shape, 2, hidden=(8,), conditional="concat", num_classes=8)
    plain = build_vae(labelled.shape, 2, hidden=(8,))
    with pytest.raises(InputError, match="must have conditions, and 'stripes'"):
        fit(vae, stripes, epochs=1, batch_size=30, progress=False)
    with pytest.raises(InputError, match="must be conditional to be given"):
        fit(plain, labelled, epochs=1, batch_size=30, progress=False)
    trained = untrained.as_run(vae, labelled)
    with pytest.raises(InputError, match="condition must be stated for each example"):
        trained.sample(3, key=key)
    with pytest.raises(InputError, match="a condition for each of 3 examples, got 2"):
        trained.sample(3, key=key, condition=[0, 1])
    with pytest.raises(InputError, match="num_classes or condition_width"):
        build_vae(labelled.shape, 2, conditional="concat")
    with pytest.raises(InputError, match="prior must not be conditional"):
        build_vae(labelled.shape, 2, prior="conditional")
    with pytest.raises(InputError, match="unknown conditional 'flim'"):
        build_vae(labelled.shape, 2, conditional="flim", num_classes=3)
    unlabelled = flaxvae.data.Dataset(
        "bare", *(Split(getattr(stripes, n).x) for n in ("train", "validation", "test"))
    )
    with pytest.raises(InputError, match="conditioned on, and 'bare' has none"):
        condition_on_labels(unlabelled)
