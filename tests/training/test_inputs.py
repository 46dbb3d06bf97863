"""Values, conditions and arguments are checked where they are given, in one line."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import Split, condition_on_labels, from_arrays
from flaxvae.models import (
    SemiSupervisedVAE,
    build_autoencoder,
    build_classifier,
    build_vae,
    build_vqvae,
)
from flaxvae.models.variables import variable_shapes
from flaxvae.objectives import (
    DIPVAE,
    ELBO,
    M2,
    TCVAE,
    WAE,
    Classification,
    FactorVAE,
    InfoVAE,
    Quantization,
    mmd,
)
from flaxvae.training import Trained

RNG = np.random.default_rng(0)
NAMES = ("cat", "cow", "dog")
IMAGES = from_arrays(
    RNG.integers(0, 256, (60, 4, 4)).astype(np.uint8),
    [NAMES[i % 3] for i in range(60)],
    validation_size=10,
    test_size=10,
    max_value=255,
)
LABELLED = condition_on_labels(IMAGES)
ROWS = from_arrays(RNG.normal(size=(60, 3)), validation_size=10, test_size=10)
SMALL = {"epochs": 1, "batch_size": 20, "progress": False}
X, Z = IMAGES.test.x, np.zeros((10, 2), np.float32)


def vae(dataset=IMAGES, **choices):
    return build_vae(dataset.shape, 2, hidden=(6,), **choices)


def conditional(num_classes=3, **choices):
    return vae(conditional="concat", num_classes=num_classes, **choices)


def replace(dataset, **changes):
    """The data set with other arrays in its training split."""
    return dataclasses.replace(
        dataset, train=dataclasses.replace(dataset.train, **changes)
    )


def untrained(model, dataset):
    """A run whose parameters are all 0.1."""
    shapes = variable_shapes(model, dataset.shape)
    variables = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.1), shapes)
    trained = Trained(model, variables, dataset.shape, dataset.preprocessing)
    return flaxvae.Run.of(trained, dataset)


@pytest.fixture(scope="module")
def plain():
    return untrained(vae(), IMAGES)


@pytest.fixture(scope="module")
def of_classes():
    return untrained(conditional(), LABELLED)


@pytest.fixture(scope="module")
def of_rows():
    return untrained(vae(ROWS), ROWS)


@pytest.mark.parametrize(
    "condition", [3, 99, -1, 1.7, np.nan, "bird", True, [0] * 9 + [3], [0.5] * 10]
)
def test_a_class_that_does_not_exist_is_refused(of_classes, condition):
    """JAX would take the nearest one."""
    rule = "condition must be a class from 0 to 2"
    for call in (
        lambda: of_classes.encode(X, condition),
        lambda: of_classes.decode(Z, condition),
        lambda: of_classes.reconstruct(X, condition),
        lambda: of_classes.sample(10, condition=condition),
    ):
        with pytest.raises(InputError, match=rule):
            call()


def test_classes_by_name_and_as_any_whole_number(of_classes):
    expected = np.asarray(of_classes.encode(X, 1).mean)
    for condition in ("cow", 1.0, np.int64(1), jnp.int32(1), ["cow"] * 10, [1.0] * 10):
        found = of_classes.encode(X, condition).mean
        np.testing.assert_array_equal(np.asarray(found), expected)
    _, labels = of_classes.generate(2, label="dog")
    assert labels.tolist() == [2, 2]
    for condition, rule in ([0, 1], "each of 10"), ([[0]] * 10, "got shape"):
        with pytest.raises(InputError, match=rule):
            of_classes.encode(X, condition)


@pytest.mark.parametrize("label", [3, -1, 1.5, True, "bird"])
def test_generate_refuses_a_label_that_does_not_exist(of_classes, label):
    with pytest.raises(InputError, match="label"):
        of_classes.generate(2, label=label)


def test_evaluate_refuses_conditions_that_do_not_exist(of_classes):
    with pytest.raises(InputError, match="a class from 0 to 2, got 7"):
        of_classes.evaluate(Split(X, condition=np.full(10, 7)))
    with pytest.raises(InputError, match="condition must be stated"):
        of_classes.evaluate(Split(X))
    with pytest.raises(InputError, match="a class from 0 to 2, got 5"):
        of_classes.evaluate(Split(X, labels=np.full(10, 5)))
    assert of_classes.evaluate(IMAGES.test) == of_classes.evaluate(LABELLED.test)


def test_vectors_as_conditions():
    data = replace(LABELLED, condition=np.zeros((40, 4), np.float32))
    data = dataclasses.replace(data, validation=IMAGES.validation[:0])
    with pytest.raises(InputError, match="vectors of 3 numbers, got shape"):
        flaxvae.fit(vae(conditional="concat", condition_width=3), data, **SMALL)
    run = untrained(vae(conditional="concat", condition_width=4), data)
    assert run.encode(X, np.zeros(4)).mean.shape == (10, 2)  # one for all
    for condition in (np.zeros((10, 3)), np.full((10, 4), np.nan), 1, "cat"):
        with pytest.raises(InputError, match="condition must"):
            run.encode(X, condition)


def m2(labels):
    x = np.zeros((len(labels), 4, 4, 1), np.float32)
    classifier = build_classifier("mlp", 3, hidden=6)
    return SemiSupervisedVAE(conditional(), classifier), M2(x=x, labels=labels)


REFUSED = {
    "labels beyond the classes": (
        lambda: (conditional(2), LABELLED, ELBO()),
        "condition of train must be a class from 0 to 1, got 2",
    ),
    "negative": (
        lambda: (conditional(), replace(LABELLED, condition=np.full(40, -1)), ELBO()),
        "a class from 0 to 2, got -1",
    ),
    "fractions": (
        lambda: (conditional(), replace(LABELLED, condition=np.full(40, 0.5)), ELBO()),
        "a class from 0 to 2, got 0.5",
    ),
    "of a classifier": (
        lambda: (build_classifier("mlp", 2), LABELLED, Classification()),
        "labels of train must be classes from 0 to 1, got 2",
    ),
    "of M2": (
        lambda: (m2(np.array([0, 3]))[0], IMAGES, m2(np.array([0, 3]))[1]),
        "labels must be classes from 0 to 2, got 3",
    ),
    "conditions without a use": (
        lambda: (vae(), LABELLED, ELBO()),
        "must be conditional to be given conditions, and train has some",
    ),
    "an autoencoder's bound": (
        lambda: (build_autoencoder((4, 4, 1), 2, hidden=6), IMAGES, ELBO()),
        "objective must be Reconstruction for the model Autoencoder, got ELBO",
    ),
    "a codebook's bound": (
        lambda: (build_vqvae((4, 4, 1), filters=4), IMAGES, ELBO()),
        "objective must be Quantization for the model VQVAE",
    ),
    "a VAE's quantization": (
        lambda: (vae(), IMAGES, Quantization()),
        "objective must be ELBO or another bound for the model VAE",
    ),
    "a class in place of a model": (
        lambda: (flaxvae.models.VAE, IMAGES, ELBO()),
        r"must be a Linen module, got the class VAE: call it, VAE\(...\)",
    ),
    "a model without encode": (
        lambda: (nn.Dense(2), IMAGES, ELBO()),
        "must have encode for the objective ELBO, got Dense without it",
    ),
    "no examples": (
        lambda: (vae(), replace(IMAGES, x=X[:0], labels=None), ELBO()),
        "train of .* must hold an example, got none",
    ),
    "a number as data": (lambda: (vae(), 3, ELBO()), "x must be"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_fit_refuses_before_it_compiles(name):
    make, message = REFUSED[name]
    model, dataset, objective = make()
    with pytest.raises(InputError, match=message):
        flaxvae.fit(model, dataset, objective=objective, **SMALL)


class Encoder(nn.Module):
    result: str

    @nn.compact
    def __call__(self, x):
        grid = nn.Dense(3)(x)
        return (grid.reshape(len(x), -1), 1) if self.result == "tuple" else grid


@pytest.mark.parametrize(("result", "got"), [("tuple", "a tuple"), ("grid", "shape")])
def test_an_encoders_features_are_checked(result, got):
    model = build_vae((4, 4, 1), 2, encoder=Encoder(result))
    with pytest.raises(InputError, match=rf"return features \(B, F\), got .*{got}"):
        flaxvae.fit(model, IMAGES, **SMALL)


def log_likelihood(model, x):
    return model.decode(model.encode(x).mean).log_prob(x)  # (B,)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda loss: {"elbo": loss}, "a dict of arrays with a loss, got elbo"),
        (lambda loss: (loss, {}), "got a tuple"),
        (lambda loss: loss.mean(), r"got an array of shape \(\)"),
        (lambda loss: None, "got None"),
        (lambda loss: {"loss": loss, "beta": 1.0}, "got 1.0 as beta"),
        (lambda loss: {"loss": loss[:, None]}, r"got the shape \(20, 1\) of loss"),
    ],
)
def test_what_an_objective_returns_is_checked(returned, message):
    def own(model, x, *, key):
        return returned(-log_likelihood(model, x))

    with pytest.raises(InputError, match=f"objective own must return .*{message}"):
        flaxvae.fit(vae(), IMAGES, objective=own, **SMALL)


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": lambda model, x: {"loss": x}},
        {"objective": ELBO},
        {"optimizer": 3},
        {"optimizer": optax.adam},
        {"on_epoch": 3},
        {"meanwhile": 3},
        {"engine": "cpu"},
        {"settings": [1]},
        {"optimization": {"epochs": 1}},
        {"seed": 1.5},
        {"workdir": 3},
        {"epochs": 1.5},
    ],
)
def test_arguments_of_another_kind_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(InputError, match=f"^{name} must"):
        flaxvae.fit(vae(), IMAGES, **SMALL | wrong)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.full((3, 4, 4, 1), np.nan),
            "finite numbers, got NaN or infinity in 3 of 3",
        ),
        (np.full((3, 4, 4, 1), np.inf), "finite numbers"),
        (np.full((3, 4, 4, 1), -0.5), "floats in 0 to 1, got -0.5"),
        (
            np.full((3, 4, 4, 1), 255.0),
            r"floats in 0 to 1.* training, such as x / 255$",
        ),
        (np.full((3, 4, 4, 1), 300), "integers in 0 to 255, got 300"),
        (np.full((3, 4, 4, 1), "a"), "x must hold numbers"),
        (None, "x must be an array of numbers, got None"),
    ],
)
def test_values_unlike_the_datas_are_refused(plain, x, message):
    calls = [plain.encode, plain.reconstruct]
    if x is not None and x.dtype.kind != "U":
        calls.append(lambda x: plain.evaluate(Split(x)))
        calls.append(lambda x: plain.compute(lambda model, x: model.encode(x).mean, x))
    for call in calls:
        with pytest.raises(InputError, match=message):
            call(x)


def test_bytes_given_to_a_model_of_floats(plain):
    of_floats = dataclasses.replace(
        plain, preprocessing=dataclasses.replace(plain.preprocessing, max_value=1.0)
    )
    with pytest.raises(InputError, match="integers in 0 to 1"):
        of_floats.encode(X)


def test_rows_may_have_any_finite_numbers(of_rows):
    assert of_rows.encode(np.full((2, 3), 100.0)).mean.shape == (2, 2)
    with pytest.raises(InputError, match="finite numbers"):
        of_rows.encode(np.full((2, 3), np.nan))
    assert of_rows.evaluate(nll_samples=2)["test"]["nll"] > 0


def test_no_examples_give_no_results(plain):
    assert plain.encode(X[:0]).mean.shape == (0, 2)
    assert plain.decode(Z[:0]).mean.shape == (0, 4, 4, 1)
    assert plain.reconstruct(X[:0]).shape == plain.sample(0).shape == (0, 4, 4, 1)
    for call in (lambda: plain.generate(0), lambda: plain.evaluate(IMAGES.test[:0])):
        with pytest.raises(InputError, match=r"num must be >= 1|must hold an example"):
            call()


@pytest.mark.parametrize("objective", [TCVAE, DIPVAE, InfoVAE, WAE, FactorVAE])
def test_terms_over_a_batch_need_two_examples(objective):
    with pytest.raises(InputError, match="batch_size must be >= 2 for the objective"):
        flaxvae.fit(vae(), IMAGES, objective=objective(), **SMALL | {"batch_size": 1})
    one = dataclasses.replace(IMAGES, validation=IMAGES.validation[:1])
    with pytest.raises(InputError, match="validation_size must be 0 or leave 2"):
        flaxvae.fit(vae(), one, objective=objective(), **SMALL)


def test_the_discrepancy_of_single_draws_is_refused():
    with pytest.raises(InputError, match="must be >= 2, got 1"):
        mmd(jnp.zeros((1, 2)), jnp.zeros((3, 2)))


def test_batch_normalization_needs_two_examples():
    model, options = vae(normalization="batch"), SMALL | {"batch_size": 1}
    none = IMAGES.validation[:0]
    one = dataclasses.replace(IMAGES, train=IMAGES.train[:1], validation=none)
    for train in (
        lambda: flaxvae.fit(model, IMAGES, **options),
        lambda: flaxvae.fit(model, one, **options),
        lambda: flaxvae.sweep(lambda: model, IMAGES, {"seed": [0]}, **options),
    ):
        with pytest.raises(InputError, match="batch_size must be >= 2 for a model"):
            train()
