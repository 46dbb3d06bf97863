"""Runs are the same with 64-bit JAX: every array has a type of its own."""

import jax
import jax.extend.core
import jax.numpy as jnp
import numpy as np
import pytest

import flaxvae
from flaxvae.data import binarize, condition_on_labels, from_arrays
from flaxvae.models import (
    CodePriorConfig,
    SemiSupervisedVAE,
    build_autoencoder,
    build_classifier,
    build_vae,
    build_vqvae,
)
from flaxvae.objectives import (
    CIWAE,
    DIPVAE,
    ELBO,
    IWAE,
    M2,
    MIWAE,
    PIWAE,
    TCVAE,
    WAE,
    Autoregressive,
    Classification,
    FactorVAE,
    InfoVAE,
    Quantization,
    Reconstruction,
)
from flaxvae.objectives.objective import with_arrays
from flaxvae.schedules import cyclical, sigmoid_warm_up, warm_up
from flaxvae.training import Engine, Optimization, Training
from flaxvae.training.optimizers import OPTIMIZERS, build_optimizer

RNG = np.random.default_rng(0)
LABELS = np.arange(60) % 3
SIZES = {"validation_size": 10, "test_size": 10}
STORED = RNG.integers(0, 256, (60, 4, 4, 1)).astype(np.uint8)
IMAGES = from_arrays(STORED, LABELS, max_value=255, **SIZES)
LEVELS = from_arrays(STORED // 64, LABELS, max_value=3, **SIZES)
ROWS = from_arrays(RNG.normal(size=(60, 3)), LABELS, **SIZES)
SMALL = {"epochs": 2, "batch_size": 20, "progress": False}


def vae(dataset, **choices):
    if choices.get("encoder", "mlp") == "mlp":
        choices = {"hidden": (6,), **choices}
    return build_vae(dataset.shape, 2, **choices)


def conditional(dataset):
    return vae(dataset, conditional="film", num_classes=3, prior="conditional")


def build_m2():
    seen = IMAGES.preprocessing.prepare(IMAGES.train.x[:8])
    labels = IMAGES.train.labels[:8]
    classifier = build_classifier("mlp", 3, hidden=(6,))
    model = SemiSupervisedVAE(
        vae(IMAGES, conditional="concat", num_classes=3), classifier
    )
    feedback = warm_up(share=0.5)
    return IMAGES, model, M2(x=seen, labels=labels, batch_size=5, feedback=feedback)


CODES = from_arrays(STORED % 5, LABELS, max_value=4, **SIZES)
LOGISTIC = {"levels": 4, "likelihood": "discretized_logistic"}
MIXTURE = {"likelihood": "discretized_logistic_mixture", "num_components": 2}
RESIDUAL = {"filters": (4,), "num_residual_blocks": 1}
ONE = {"prior_flows": 1, "posterior_flows": 1}
QUICK = ("bernoulli", "binarized", "mixture", "conditional", "codebook", "code prior")
PROGRAMS = {
    "bernoulli": lambda: (IMAGES, vae(IMAGES), ELBO(beta=warm_up(epochs=1))),
    "binarized": lambda: (
        binarize(IMAGES, "dynamic"),
        vae(IMAGES, dropout=0.2, normalization="batch"),
        ELBO(beta=cyclical(), kl="sampled", num_samples=2),
    ),
    "convolutional": lambda: (
        IMAGES,
        vae(IMAGES, encoder="conv", likelihood="continuous_bernoulli"),
        TCVAE(),
    ),
    "residual": lambda: (
        LEVELS,
        vae(LEVELS, encoder="resnet", **RESIDUAL, posterior="iaf", **LOGISTIC),
        IWAE(num_samples=3, estimator="dreg"),
    ),
    "mixture": lambda: (
        LEVELS,
        vae(LEVELS, levels=4, prior="mixture", posterior="full", **MIXTURE),
        MIWAE(num_samples=4, num_means=2),
    ),
    "categorical": lambda: (
        LEVELS,
        vae(LEVELS, levels=4, likelihood="categorical", dtype="bfloat16"),
        FactorVAE(),
    ),
    "vamp": lambda: (
        IMAGES,
        vae(IMAGES, prior="vamp", prior_components=4, likelihood="normal"),
        ELBO(beta=sigmoid_warm_up(epochs=1)),
    ),
    "flows": lambda: (
        ROWS,
        vae(ROWS, prior="flow", posterior="planar", likelihood="laplace", **ONE),
        PIWAE(num_samples=4, num_means=2),
    ),
    "more flows": lambda: (
        ROWS,
        vae(ROWS, prior="flow", prior_flow="autoregressive", posterior="radial", **ONE),
        InfoVAE(),
    ),
    "moments": lambda: (ROWS, vae(ROWS), DIPVAE()),
    "wae": lambda: (ROWS, vae(ROWS, prior="mixture"), WAE()),
    "free bits": lambda: (IMAGES, vae(IMAGES), ELBO(free_bits=0.1, capacity=1.0)),
    "conditional": lambda: (
        condition_on_labels(IMAGES),
        conditional(IMAGES),
        CIWAE(num_samples=2),
    ),
    "codebook": lambda: (
        IMAGES,
        build_vqvae(IMAGES.shape, num_codes=5, code_width=2, **RESIDUAL),
        Quantization(),
    ),
    "finite scalars": lambda: (
        IMAGES,
        build_vqvae(IMAGES.shape, quantizer="fsq", fsq_levels=(3, 2), **RESIDUAL),
        Quantization(),
    ),
    "code prior": lambda: (
        condition_on_labels(CODES),
        CodePriorConfig(prior_width=8, prior_layers=1).build(
            condition_on_labels(CODES)
        ),
        Autoregressive(),
    ),
    "denoising": lambda: (
        IMAGES,
        build_autoencoder(IMAGES.shape, 4, hidden=(6,), code_activation="sigmoid"),
        Reconstruction(corruption="salt_and_pepper", rate_weight=1.0, l1=0.1),
    ),
    "classifier": lambda: (
        condition_on_labels(IMAGES),
        build_classifier("mlp", 3, hidden=(6,)),
        Classification(),
    ),
    "few labels": build_m2,
}


def every_equation(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from every_equation(inner)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
        for name in PROGRAMS
    ],
)
def test_every_training_is_traced_in_32_bits(name):
    """No draw of 64 bits, whose values are others, and no array of float64."""
    with jax.enable_x64():
        dataset, model, objective = PROGRAMS[name]()
        optimization = Optimization(
            epochs=2,
            batch_size=20,
            early_stopping=None if name == "bernoulli" else 2,
            ema_decay=0.9,
            skip_above=1e3,
            lr_schedule="cosine",
        )
        training = Training(model, dataset, objective, optimization)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        weights = with_arrays(training.completed.objective)
        create = jax.jit(training.init).trace(seed, weights)
        run = create.out_info
        step = jax.jit(training.step).trace(run.state, training.batch)
        traces = [create.jaxpr, step.jaxpr]
        # The loops around the step are the same for all others.
        if name in ("bernoulli", "binarized"):
            examples = dataset.train.batch(), dataset.validation.batch()
            steps = [jax.ShapeDtypeStruct((), jnp.int32)] * 2
            advance = jax.jit(training.epochs).trace(run, examples, *steps)
            traces.append(advance.jaxpr)
    for traced in traces:
        for equation in every_equation(traced.jaxpr):
            text = f"{equation.primitive.name} at {equation.source_info.traceback}"
            assert equation.params.get("bit_width") != 64, text
            for variable in equation.outvars:
                aval = variable.aval
                is_wide = getattr(aval, "dtype", None) == np.float64
                assert not (is_wide and aval.size > 1), text
    wide = [leaf for leaf in jax.tree.leaves(run) if str(leaf.dtype).endswith("64")]
    assert not wide


def flatten(tree):
    """The numbers of nested dicts, lists and arrays by their place, but times."""
    return {
        jax.tree_util.keystr(path): np.asarray(leaf, np.float64)
        for path, leaf in jax.tree.leaves_with_path(tree)
        if "seconds" not in str(path) and not isinstance(leaf, str)
    }


def assert_same(function):
    """What it returns is the same with 64-bit JAX, to the rounding of float32."""
    narrow = flatten(function())
    with jax.enable_x64():
        wide = flatten(function())
    assert_equal(wide, narrow)


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, 2e-5, 2e-5, err_msg=name)


def test_a_run_continues_under_the_other_setting(tmp_path):
    """With the numbers of an uninterrupted run, and the same types."""
    options = {"early_stopping": 2, "ema_decay": 0.9, "epochs": 2, "batch_size": 20}
    training = Training(vae(IMAGES), IMAGES, optimization=Optimization(**options))
    whole = flaxvae.fit(training, progress=False)
    until_1 = {"on_epoch": lambda *_: True, "workdir": tmp_path}
    flaxvae.fit(training, progress=False, **until_1)
    with jax.enable_x64():
        run = flaxvae.fit(
            vae(IMAGES), IMAGES, workdir=tmp_path, progress=False, **options
        )
        loaded = flaxvae.load(tmp_path)
    assert_equal(flatten(run.history), flatten(whole.history))
    assert_equal(flatten(run.variables), flatten(whole.variables))
    for leaf in jax.tree.leaves((loaded.variables, run.variables)):
        assert leaf.dtype == np.float32


@pytest.mark.slow
def test_a_run_and_all_that_is_done_with_it():
    """Training, report, -log p(x), samples; float64 examples and codes."""
    data = binarize(IMAGES, "dynamic")

    def train():
        run = flaxvae.fit(
            vae(data, dropout=0.2), data, early_stopping=2, ema_decay=0.9, **SMALL
        )
        dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(run.variables)}
        assert dtypes == {"float32"}
        codes = run.encode(data.test.x / 255.0).mean
        assert codes.dtype == run.decode(np.zeros((1, 2))).mean.dtype == np.float32
        samples = [
            run.generate(3, sampler=name, with_noise=True)[0]
            for name in ("prior", "mixture", "aggregate")
        ]
        report = run.evaluate(nll_samples=7)
        return [run.history, report, samples, np.asarray(codes)]

    assert_same(train)


@pytest.mark.slow
def test_a_codebook_and_its_prior():
    config = CodePriorConfig(prior_epochs=1, prior_width=8, prior_layers=1)

    def train():
        model = PROGRAMS["codebook"]()[1]
        run = flaxvae.fit(
            model,
            IMAGES,
            **SMALL | {"epochs": 1},
            objective=Quantization(),
        )
        run = run.fit_code_prior(config, progress=False)
        return [run.history, run.evaluate(), run.generate(5)[0]]

    assert_same(train)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sweep", "streamed"])
def test_a_sweep_and_a_streamed_run(name):
    def sweep():
        grid = {"beta": np.linspace(0.5, 2.0, 2), "seed": [0, 1]}
        members = flaxvae.sweep(lambda: vae(IMAGES), IMAGES, grid, **SMALL)
        return [member.trained.history for member in members]

    def streamed():
        least = IMAGES.validation.x.nbytes + 3 * 20 * 16
        engine = Engine(device_memory_budget=least)
        return flaxvae.fit(vae(IMAGES), IMAGES, engine=engine, **SMALL).history

    assert_same({"sweep": sweep, "streamed": streamed}[name])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_keep_their_types(name):
    params = {"kernel": np.ones((2, 3), np.float32), "bias": np.ones(3, np.float32)}
    optimizer = build_optimizer(
        name, 1e-2, schedule="cosine", warmup_steps=1, total_steps=5, clip_norm=1.0
    )
    with jax.enable_x64():
        state = jax.eval_shape(optimizer.init, params)
        after = jax.eval_shape(optimizer.update, params, state, params)
    assert jax.tree.map(lambda leaf: leaf.dtype, after[1]) == jax.tree.map(
        lambda leaf: leaf.dtype, state
    )
