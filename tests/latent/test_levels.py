"""What the levels of a model decide, as arrays and as pictures."""

import dataclasses
import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import generate as command
from flaxvae import Run
from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, from_arrays
from flaxvae.distributions.levels import Codes, LevelPrior
from flaxvae.evaluation import bound
from flaxvae.evaluation.levels import evaluate_levels
from flaxvae.latent import encode_dataset, generate, level_pictures, levels
from flaxvae.latent.context import Context
from flaxvae.latent.encode import encode_means, evaluation_key
from flaxvae.latent.figures import levels as drawn
from flaxvae.latent.samplers import AggregatePosterior
from flaxvae.models import build_vae
from flaxvae.models.hierarchical import HierarchicalVAE
from flaxvae.nn import BernoulliHead, NormalHead, StandardNormal
from flaxvae.nn.levels import MLPLevels
from flaxvae.nn.top_down import TopDownLevels
from flaxvae.run import fit, load, save
from flaxvae.training import evaluate
from tests.compiled import list_programs
from tests.latent import untrained

DIMS = (2, 3, 4)
SMALL = {"epochs": 2, "batch_size": 40, "progress": False, "learning_rate": 0.02}


def build(shape, dims=DIMS, head=None, **choices):
    network = MLPLevels(
        output_shape=shape, latent_dims=dims, hidden=(8,), level_hidden=(6,), **choices
    )
    return HierarchicalVAE(network, StandardNormal(dims[0]), head or BernoulliHead())


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = rng.random((90, 1, 1, 1)) * rng.random((90, 4, 4, 1))
    labels = rng.integers(0, 3, 90)
    test = (x[60:].astype(np.float32), labels[60:])
    return from_arrays(x[:60].astype(np.float32), labels[:60], test=test, name="grey")


def as_run(model, data):
    return untrained.as_run(
        model,
        data,
        scale=0.5,
        codes=lambda epoch: {"kl_per_level": [1.0 / epoch, 2.0, 0.5 * epoch]},
    )


@pytest.fixture(scope="module")
def trained(data):
    return as_run(build(data.shape, decoder_skip=True), data)


@pytest.fixture(scope="module")
def plain(data):
    return as_run(build_vae(data.shape, 2, hidden=(4,)), data)


@functools.partial(jax.jit, static_argnames=("model", "level"))
def compute_prior(model, variables, level, above):
    def method(vae, z):
        network = vae.network
        return network.prior_heads[level - 1](network.down[level - 1](z))

    p = model.apply(variables, above, method=method)
    return p.mean, p.std


@functools.partial(jax.jit, static_argnames="model")
def compute_decoded(model, variables, codes):
    return model.apply(variables, codes, method="decode").mean


@functools.partial(jax.jit, static_argnames="model")
def compute_means(model, variables, x):
    return model.apply(variables, x, method="encode").mean.levels


@functools.partial(jax.jit, static_argnames="model")
def compute_kl(model, variables, x, key):
    return model.apply(variables, x, method="encode").draw(key).kl


def prior_of(trained, level, above):
    """Mean and deviation of a level given the one above it, layer by layer."""
    found = compute_prior(trained.model, trained.variables, level, jnp.asarray(above))
    return [np.asarray(each) for each in found]


def decode(trained, z):
    codes = Codes(tuple(jnp.asarray(level) for level in z))
    return np.asarray(compute_decoded(trained.model, trained.variables, codes))


def means_of(trained, x):
    found = compute_means(trained.model, trained.variables, jnp.asarray(x))
    return [np.asarray(level) for level in found]


def close(a, b, **tolerance):
    np.testing.assert_allclose(a, b, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def test_a_temperature_scales_the_deviation_of_each_level(trained, key):
    full = trained.draw_levels(5, key=key).levels
    assert [z.shape for z in full] == [(5, D) for D in DIMS]
    half = trained.draw_levels(5, key=key, temperature=0.5).levels
    close(half[0], 0.5 * full[0])
    for level in (1, 2):
        mean, std = prior_of(trained, level, full[level - 1])
        eps = (full[level] - mean) / std  # the same noise
        mean, std = prior_of(trained, level, half[level - 1])
        close(half[level], mean + 0.5 * std * eps, rtol=1e-3)
    cold = trained.draw_levels(5, key=key, temperature=0.0).levels
    close(cold[0], 0.0)
    close(cold[1], prior_of(trained, 1, cold[0])[0])
    close(cold[2], prior_of(trained, 2, cold[1])[0])
    rows = levels.sample_temperatures(trained, (0.0, 0.5, 1.0), 5, key=key)
    assert rows.shape == (3, 5, 4, 4, 1)
    close(rows[0], decode(trained, cold))
    close(rows[1], decode(trained, half))
    close(rows[2], decode(trained, full))


def test_levels_that_are_kept_stay_and_the_rest_is_redrawn(trained, key):
    z = trained.draw_levels(5, key=key).levels
    other = jax.random.fold_in(key, 1)
    redrawn = trained.draw_levels(5, key=other, given=z[:2]).levels
    for kept in (0, 1):
        np.testing.assert_array_equal(redrawn[kept], z[kept])
    assert (redrawn[2] != z[2]).all()
    images = levels.vary_levels(trained, z, (0, 1, 3), 4, key=other)
    assert images.shape == (5, 3, 4, 4, 4, 1)  # (A, numbers of levels, draws, ...)
    own = decode(trained, z)
    close(images[:, 2], np.broadcast_to(own[:, None], images[:, 2].shape))
    assert (images[:, :2].std(axis=2) > 0).any(axis=(2, 3, 4)).all()
    # All redrawn from the same noise: a sample of the prior, whatever the anchor.
    fresh = trained.draw_levels(20, key=other).levels
    close(images[:, 0].reshape(20, 4, 4, 1), decode(trained, fresh))
    top = np.repeat(z[0], 4, axis=0)
    given = trained.draw_levels(20, key=other, given=[top]).levels
    close(images[:, 1].reshape(20, 4, 4, 1), decode(trained, given))


def test_one_program_draws_below_any_number_of_levels(trained, key, monkeypatch):
    traces, sample = [], LevelPrior.sample

    def counted(prior, *args, **options):
        traces.append(1)
        return sample(prior, *args, **options)

    monkeypatch.setattr(LevelPrior, "sample", counted)
    z = trained.draw_levels(5, key=key).levels
    traces.clear()
    levels.vary_levels(trained, z, (1, 2, 3), 7, key=key)
    assert len(traces) == 1


def test_reconstruction_from_the_first_levels(trained, data, key):
    x = data.test.x[:5]
    top, middle, last = means_of(trained, x)
    second = prior_of(trained, 1, top)[0]
    expected = {
        1: (top, second, prior_of(trained, 2, second)[0]),
        2: (top, middle, prior_of(trained, 2, middle)[0]),
        3: (top, middle, last),
    }
    for kept, z in expected.items():
        found = levels.reconstruct_from_levels(trained, x, kept)
        close(found, decode(trained, z))
    close(trained.reconstruct(x), found)
    by_draws = levels.reconstruct_from_levels(trained, x, 1, key=key)
    assert (by_draws != levels.reconstruct_from_levels(trained, x, 1)).any()
    again = levels.reconstruct_from_levels(trained, x, 3, key=key)
    close(again, found)  # nothing is left to draw
    for kept, message in ((0, "kept must be >= 1, got 0"), (4, "kept must be <= 3")):
        with pytest.raises(InputError, match=message):
            levels.reconstruct_from_levels(trained, x, kept)
    with pytest.raises(InputError, match="kept must be <= 3, the number of levels"):
        levels.vary_levels(trained, (top, middle, last), (1, 4), 2, key=key)


def test_the_kl_of_each_level_is_the_weighted_mean_of_the_diagnostics(
    trained, data, key
):
    split = dataclasses.replace(data.test, weights=np.linspace(0, 2, len(data.test)))
    _, key_z = jax.random.split(jax.random.fold_in(key, 0))
    x = jnp.asarray(split.x)
    kl = np.asarray(compute_kl(trained.model, trained.variables, x, key_z))  # (L, N)
    expected = (kl * split.weights).sum(1) / split.weights.sum()
    close(levels.kl_per_level(trained, split, key=key), expected, rtol=1e-3)


def test_the_kl_of_each_level_is_that_of_the_report(data, monkeypatch):
    """Draws of each batch of an evaluation, whose examples differ in noise alone."""
    monkeypatch.setattr(evaluate, "EVALUATION_BATCH", 8)
    monkeypatch.setattr(bound, "EVALUATION_BATCH", 8)
    binarized = dataclasses.replace(
        as_run(build(data.shape, (2, 1)), data),
        preprocessing=Preprocessing(binarize="dynamic"),
    )
    same = data.test[np.zeros(19, int)]
    key, found = evaluation_key(binarized, seed=5), []
    is_first = np.arange(19) < 8
    for weights in (None, is_first, ~is_first):
        part = dataclasses.replace(same, weights=weights)
        kl = levels.kl_per_level(binarized, part, key=key)
        close(kl, evaluate_levels(binarized, part, seed=5)["kl_per_level"], rtol=1e-5)
        found.append(kl)
    assert (found[1] != found[2]).all()


def test_many_examples_are_drawn_and_encoded_in_parts(trained, data, key, monkeypatch):
    whole = encode_means(trained, data.test, level=1)
    monkeypatch.setattr(levels, "ROWS", 4)
    close(encode_means(trained, data.test, level=1), whole)
    assert encode_means(trained, data.test[:0], level=1).shape == (0, 3)
    z = trained.draw_levels(5, key=key).levels
    close(levels.decode_levels(trained, Codes(z)), decode(trained, z))
    source = AggregatePosterior(trained, data.train.x)
    images = np.asarray(trained.sample(5, key=key, sampler=source))
    assert len(np.unique(images.reshape(5, -1), axis=0)) == 5


def test_equal_models_share_programs(data, caplog):
    """Whatever the parameters and the key."""

    def compute(trained, seed):
        key = jax.random.key(seed)
        levels.kl_per_level(trained, data.test, key=key)
        levels.encode_level(trained, data.test.x, 1, key=key)

    binarized = dataclasses.replace(data, preprocessing=Preprocessing(1.0, "dynamic"))
    first, second = (
        list_programs(caplog, compute, as_run(build(data.shape, (2, 1)), binarized), i)
        for i in range(2)
    )
    assert {"find", "compute"} <= set(first)
    assert not second


def test_codes_of_a_level_are_rows(trained, plain, data):
    expected = means_of(trained, data.test.x)
    close(encode_means(trained, data.test), expected[0])
    for level in range(3):
        codes = encode_dataset(trained, data, level=level)
        close(codes.test.x, expected[level])
        assert codes.train.x.shape == (len(data.train), DIMS[level])
    np.testing.assert_array_equal(codes.test.labels, data.test.labels)
    noise = jax.random.key(0)  # changes nothing where nothing is drawn
    close(encode_means(trained, data.test, key=noise, level=2), expected[2])
    z = [np.arange(12.0).reshape(2, 3, 2), np.arange(2.0).reshape(2, 1)]
    rows = levels.flatten_levels(z)
    assert rows.tolist() == [[0, 1, 2, 3, 4, 5, 0], [6, 7, 8, 9, 10, 11, 1]]
    for a, b in zip(levels.split_levels(rows, [(3, 2), (1,)]), z, strict=True):
        np.testing.assert_array_equal(a, b)
    with pytest.raises(InputError, match="level must be < 3, got 3"):
        encode_dataset(trained, data, level=3)
    with pytest.raises(InputError, match="level must be >= 0, got -1"):
        encode_dataset(trained, data, level=-1)
    with pytest.raises(InputError, match="level must be left out for a model without"):
        encode_dataset(plain, data, level=0)


def test_generated_samples(trained, data):
    x, labels = generate(trained, 5)
    assert labels is None and x.shape == (5, 4, 4, 1)
    cold, _ = generate(trained, 5, temperature=0.0)
    close(cold, np.broadcast_to(cold[:1], cold.shape))
    assert x.std(axis=0).max() > 1e-3
    noisy, _ = generate(trained, 5, with_noise=True, temperature=0.5)
    assert set(np.unique(noisy)) <= {0.0, 1.0}
    x, labels = generate(trained, 5, label=1, dataset=data)
    rows = data.train.labels == 1
    of_class = dataclasses.replace(data, train=data.train[rows])
    expected, _ = generate(trained, 5, sampler="aggregate", dataset=of_class)
    np.testing.assert_array_equal(x, expected)
    assert (labels == 1).all()
    near, _ = generate(trained, 3, around=data.test[:2], spread=0.0)
    own = decode(trained, means_of(trained, data.test.x[:2]))
    close(near, own.repeat(3, axis=0))
    far, _ = generate(trained, 3, around=data.test[:2])
    assert (far != near).any()


def test_many_samples_around_examples_are_drawn_in_parts(trained, data, monkeypatch):
    """A few examples or draws at once, each with noise of its own."""
    monkeypatch.setattr(sys.modules[generate.__module__], "CHUNK", 4)
    for num_examples in (2, 5):
        around = data.test[:num_examples]
        near, _ = generate(trained, 4, around=around, spread=0.0)
        own = decode(trained, means_of(trained, around.x))
        close(near, own.repeat(4, axis=0))
        far, _ = generate(trained, 4, around=around)
        assert far.shape == near.shape
        assert len(np.unique(far.reshape(len(far), -1), axis=0)) == len(far)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"temperature": -0.1}, "temperature must be >= 0, got -0.1"),
        ({"temperature": float("nan")}, "temperature must be >= 0, got nan"),
        ({"temperature": "hot"}, "temperature must be a number, got 'hot'"),
        ({"temperature": 0.5, "label": 1}, "temperature must be left out where codes"),
        ({"temperature": 0.5, "sampler": "aggregate"}, "temperature must be left out"),
        ({"sampler": "mixture"}, "sampler must be prior or aggregate for a model with"),
    ],
)
def test_what_levels_cannot_do_is_refused(trained, data, choices, message):
    with pytest.raises(InputError, match=message):
        generate(trained, 2, dataset=data, **choices)


def test_a_model_without_levels_has_no_temperature(plain):
    with pytest.raises(InputError, match=r"without levels .* got 0\.5"):
        generate(plain, 2, temperature=0.5)
    np.testing.assert_array_equal(
        generate(plain, 2, temperature=1.0)[0], generate(plain, 2)[0]
    )


def test_a_run_and_the_command_pass_the_temperature_on(trained, tmp_path, capsys):
    save(trained, tmp_path / "run")
    run = load(tmp_path / "run")
    assert isinstance(run, Run) and not run.needs_data()
    x, _ = run.generate(5, temperature=0.0)
    close(x, generate(trained, 5, temperature=0.0)[0])
    flags = command.Flags(workdir=tmp_path / "run", num=5, temperature=0.0)
    command.main(flags)
    with np.load(tmp_path / "run" / "samples.npz") as written:
        close(written["x"], x)
    assert "5 samples" in capsys.readouterr().out


def test_the_pictures_of_levels(trained, tmp_path, coarse):
    paths = trained.draw(tmp_path)
    assert [path.stem for path in paths] == [
        "training_curves",
        "latent_scatter",
        "reconstructions",
        "samples",
        "interpolations",
        "level_samples",
        "level_reconstructions",
        "temperatures",
        "kl_per_level",
        "kl_by_epoch",
    ]
    assert {path.name for path in tmp_path.iterdir()} == {p.name for p in paths}
    with pytest.raises(InputError, match="manifold_dims must be left out"):
        trained.draw(tmp_path, manifold_dims=(0, 1))
    with pytest.raises(InputError, match="sampler must be prior or aggregate"):
        trained.draw(tmp_path, sampler="mixture")


def test_bars_are_the_kl_of_the_test_split(trained, data):
    context = Context(trained=trained, dataset=data, title="grey")
    figure = level_pictures.kl_per_level(context)
    axes = figure.axes[0]
    kl = levels.kl_per_level(trained, data.test, key=evaluation_key(trained))
    bars = axes.containers[0]
    close([bar.get_width() for bar in bars], kl)
    assert [bar.get_y() + 0.4 for bar in bars] == pytest.approx([1, 2, 3])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the top level is uppermost
    shown = [f"{v:.2f}" if v < 10 else f"{v:.1f}" for v in kl]
    assert [text.get_text() for text in axes.texts] == shown
    assert axes.get_title().endswith(f"grey\n{kl.sum():.2f} nats in total")
    assert axes.get_xlabel() == "KL, nats per example"
    lines = level_pictures.kl_by_epoch(context).axes[0].lines
    history = [line["codes"]["kl_per_level"] for line in trained.history]
    close([line.get_ydata() for line in lines], np.transpose(history))
    empty = dataclasses.replace(
        context, trained=dataclasses.replace(trained, history=[])
    )
    assert level_pictures.kl_by_epoch(empty) is None


def test_levels_on_grids_are_named_by_their_grids(data, monkeypatch):
    """The first one too, whose code is a vector."""
    network = TopDownLevels(data.shape, (2, 1), widths=4, latent_channels=2)
    vae = HierarchicalVAE(network, StandardNormal(2), BernoulliHead())
    deep = as_run(vae, data)
    assert deep.level_shapes == ((2,), (1, 1, 2), (4, 4, 2))
    assert network.level_shapes == ((1, 1, 2), (1, 1, 2), (4, 4, 2))
    kl = np.array([1.0, 2.0, 3.0])
    monkeypatch.setattr(levels, "kl_per_level", lambda *args, **options: kl)
    context = Context(trained=deep, dataset=data, title="deep")
    legend = level_pictures.kl_per_level(context).legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["1 x 1 x 2", "4 x 4 x 2"]


def test_many_levels_are_rows_of_colours():
    kl = np.geomspace(1e-4, 9, 120).reshape(3, 40)
    figure = drawn.plot_kl_by_epoch([1, 2, 3], kl, title="deep")
    mesh = figure.axes[0].collections[0]
    close(mesh.get_array(), np.clip(kl.T, 0.01, None))
    figure = drawn.plot_kl_per_level(kl[2], ["4"] * 40, title="deep")
    assert len(figure.axes[0].texts) == 40 and not figure.legends
    figure = drawn.plot_kl_per_level(kl[2], ["4"] * 20 + ["8"] * 20, title="deep")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["4", "8"]
    assert not drawn.plot_kl_per_level(kl.ravel(), title="deeper").axes[0].texts


def test_blocks_of_variations():
    images = np.random.default_rng(0).random((2, 3, 4, 5, 5, 1))
    figure = drawn.plot_variations(
        images[:, 0, 0], images, ["a", "b", "c"], title="blocks"
    )
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == list("abcabc")
    picture = axes.images[0].get_array()
    assert picture.shape == (2 * 17 + 2, 5 + 2 + 23)
    close(picture[:5, :5], images[0, 0, 0, ..., 0])
    close(picture[6:17, :5], 1.0)  # the sample stands beside the first row only
    close(picture[19 + 12 : 19 + 17, 7 + 18 :], images[1, 2, 3, ..., 0])


def test_one_level_has_nothing_to_vary(data):
    one = as_run(build(data.shape, (2,)), data)
    context = Context(trained=one, dataset=data, title="one")
    assert level_pictures.level_samples(context) is None
    assert level_pictures.level_reconstructions(context) is None


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(5,), (12, 2), (2, 40, 1), (8, 8, 3)])
def test_pictures_of_levels_of_other_data(shape, tmp_path):
    rng = np.random.default_rng(0)
    x = rng.random((80, *shape), np.float32)
    data = from_arrays(x, name="other")
    head = BernoulliHead() if len(shape) == 3 else NormalHead()
    trained = fit(build(data.shape, (2,) * 9, head), data, **SMALL)
    names = {path.stem for path in trained.draw(tmp_path, sampler="aggregate")}
    assert {"kl_per_level", "kl_by_epoch", "latent_scatter", "samples"} <= names
    assert ("level_samples" in names) == (len(shape) > 1)
