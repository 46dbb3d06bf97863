"""The pictures of a run, by the kind of its model."""

import dataclasses
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import PIL.ImageStat
import pytest

from flaxvae.checks import InputError
from flaxvae.data import condition_on_labels, from_arrays
from flaxvae.data.dataset import SPLITS
from flaxvae.distributions import Normal
from flaxvae.evaluation import elbo_surgery, fit_code_prior
from flaxvae.latent import draw, encode_dataset, figures, panels, pictures
from flaxvae.latent.context import Context
from flaxvae.models import (
    CodePriorConfig,
    build_autoencoder,
    build_vae,
    build_vqvae,
)
from flaxvae.objectives import Quantization, Reconstruction
from flaxvae.training import fit
from tests.conftest import COARSE
from tests.latent.untrained import as_run

pytestmark = pytest.mark.usefixtures("coarse")

SMALL = {"epochs": 2, "batch_size": 50, "progress": False}
COMMON = ["training_curves", "latent_scatter", "reconstructions"]


@pytest.fixture
def titles(monkeypatch):
    """The title of every figure that is saved, by its file's name."""
    found = {}
    save = figures.save_figure

    def watch(figure, path):
        texts = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        found[path.stem] = next(text for text in texts if text)
        save(figure, path)

    monkeypatch.setattr(figures, "save_figure", watch)
    return found


def check(paths, names, folder):
    assert [path.stem for path in paths] == names
    assert {path.name for path in folder.iterdir()} == {f"{n}.png" for n in names}
    for path in paths:
        with PIL.Image.open(path) as picture:
            assert picture.width >= COARSE * 600
            assert PIL.ImageStat.Stat(picture.convert("L")).stddev[0] > 0.01 * 255


@pytest.mark.parametrize(
    "latent_dim",
    [3, *(pytest.param(few, marks=pytest.mark.slow) for few in (1, 2))],
)
def test_the_pictures_of_a_vae(stripes, tmp_path, titles, latent_dim):
    trained = as_run(build_vae(stripes.shape, latent_dim, hidden=(8,)), stripes)
    paths = draw(trained, stripes, tmp_path, title="stripes, 16-8-2", sampler="mixture")
    check(paths, [*COMMON, "manifold", "samples", "interpolations"], tmp_path)
    rest = "" if latent_dim <= 2 else ", other dimensions 0"
    kind = "posterior means" if latent_dim <= 2 else "PCA of posterior means"
    assert titles["manifold"] == f"Decoded latent grid{rest}: stripes, 16-8-2"
    assert titles["latent_scatter"].startswith(f"Test {kind}")
    assert titles["samples"].startswith("Samples from a mixture fitted to training")
    first_lines = [title.splitlines()[0] for title in titles.values()]
    assert all(line.endswith(": stripes, 16-8-2") for line in first_lines)


def test_the_pictures_of_a_conditional_vae(stripes, tmp_path):
    data = condition_on_labels(stripes)
    vae = build_vae(data.shape, 2, hidden=(8,), conditional="concat", num_classes=8)
    trained = as_run(vae, data)
    check(
        draw(trained, data, tmp_path),
        [*COMMON, "class_samples", "class_change"],
        tmp_path,
    )
    with pytest.raises(InputError, match="prior for a model that is conditional"):
        draw(trained, data, tmp_path, sampler="aggregate")


def test_the_pictures_of_a_table(tmp_path, titles):
    rng = np.random.default_rng(0)
    data = from_arrays(rng.normal(50, 9, (200, 3)), rng.integers(0, 2, 200), name="t")
    trained = as_run(build_vae(data.shape, 2, hidden=(8,)), data)
    check(draw(trained, data, tmp_path), [*COMMON, "samples"], tmp_path)
    assert titles["samples"] == "Test rows and samples from the prior: t"


def test_the_pictures_of_an_autoencoder_of_a_table():
    data = from_arrays(np.random.default_rng(0).normal(size=(60, 3)), name="t")
    noise = Reconstruction(corruption="masking", noise=0.3)
    model = build_autoencoder(data.shape, 2, hidden=(8,))
    chosen = pictures.choose_pictures(as_run(model, data, objective=noise), data)
    assert chosen["reconstructions"] is pictures.row_reconstructions
    assert "denoised" not in chosen and "autoencoder_and_vae" not in chosen


def test_the_pictures_of_autoencoders(stripes, tmp_path, titles):
    model = build_autoencoder(stripes.shape, 4, hidden=(8,))
    trained = as_run(model, stripes, objective=Reconstruction())
    names = ["training_curves", "activity", "tsne", "reconstructions"]
    check(draw(trained, stripes, tmp_path / "a"), names, tmp_path / "a")
    noise = Reconstruction(corruption="masking", noise=0.3)
    denoising = dataclasses.replace(trained, objective=noise)
    vae = as_run(build_vae(stripes.shape, 4, hidden=(8,)), stripes)
    folder, names = tmp_path / "b", ["denoised", "autoencoder_and_vae"]
    chosen = {name: pictures.AUTOENCODER_PICTURES[name] for name in names}
    check(draw(denoising, stripes, folder, other=vae, pictures=chosen), names, folder)
    assert titles["autoencoder_and_vae"] == (
        "An autoencoder and a VAE of the same size: stripes"
    )
    few = dataclasses.replace(stripes, test=stripes.test[:2])
    names = ["training_curves", "activity", "reconstructions", "autoencoder_and_vae"]
    check(draw(trained, few, tmp_path / "c", other=vae), names, tmp_path / "c")


@pytest.mark.slow
@pytest.mark.parametrize(
    "has_classes", [True, pytest.param(False, marks=pytest.mark.slow)]
)
def test_the_pictures_of_a_vqvae(stripes, tmp_path, titles, has_classes):
    model = build_vqvae(stripes.shape, num_codes=6, code_width=2, filters=(4,))
    trained = fit(model, stripes, objective=Quantization(), **SMALL)
    names = ["training_curves", "reconstructions", "code_maps", "code_usage"]
    if has_classes:
        check(draw(trained, stripes, tmp_path / "a"), names, tmp_path / "a")
    config = CodePriorConfig(
        prior_epochs=1, prior_width=8, prior_layers=1, prior_classes=has_classes
    )
    codes = encode_dataset(trained, stripes, indices=True)
    prior = fit_code_prior(codes, config, progress=False)
    paths = draw(trained, stripes, tmp_path / "b", code_prior=prior, codes=codes)
    check(paths, [*names, "samples", "prior_training_curves"], tmp_path / "b")
    assert titles["samples"].startswith("Samples from the prior over codes: ")


class ToMaps(nn.Module):
    """A posterior over codes (2, 2, 1)."""

    @nn.compact
    def __call__(self, features):
        mean = nn.Dense(4)(features).reshape(-1, 2, 2, 1)
        return Normal(mean, jnp.zeros_like(mean), event_ndim=3)


class OfMaps(nn.Module):
    """N(0, I) over them; without its mean, as a user's own prior may be."""

    def __call__(self):
        return Draws(Normal(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2, 1)), event_ndim=3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Draws:
    normal: Normal

    def sample(self, key, shape=()):
        return self.normal.sample(key, shape)

    def log_prob(self, x):
        return self.normal.log_prob(x)


class FromMaps(nn.Module):
    @nn.compact
    def __call__(self, z):
        return nn.Dense(16)(z.reshape(*z.shape[:-3], 4)).reshape(*z.shape[:-3], 4, 4, 1)


def test_the_pictures_of_codes_that_are_maps(stripes, tmp_path):
    parts = {"posterior": ToMaps(), "prior": OfMaps(), "decoder": FromMaps()}
    vae = build_vae(stripes.shape, 4, hidden=(4,), **parts)
    run = as_run(vae, stripes)
    check(
        draw(run, stripes, tmp_path),
        ["training_curves", "reconstructions", "samples"],
        tmp_path,
    )
    assert elbo_surgery(run, stripes.test) == {}
    with pytest.raises(InputError, match="unknown picture 'latent_scatter'"):
        draw(run, stripes, tmp_path, pictures="latent_scatter")
    with pytest.raises(InputError, match=r"functions by name, such as \{'mine'"):
        draw(run, stripes, tmp_path, pictures=print)


def test_what_cannot_be_drawn_is_refused(stripes, tmp_path):
    trained = as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    with pytest.raises(InputError, match="manifold_dims must be in 0 to 1"):
        draw(trained, stripes, tmp_path, manifold_dims=(0, 2))
    with pytest.raises(InputError, match="unknown sampler 'none'"):
        draw(trained, stripes, tmp_path, sampler="none")
    one = dataclasses.replace(stripes, test=stripes.test[:1])
    with pytest.raises(InputError, match="dataset must hold 2 test examples or more"):
        draw(trained, one, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_test_examples_and_no_labels_and_no_history_are_enough(stripes, tmp_path):
    trained = as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    test = dataclasses.replace(stripes.test[:2], labels=None)
    data = dataclasses.replace(stripes, test=test)
    loaded = dataclasses.replace(trained, history=[])
    names = [*COMMON[1:], "manifold", "samples", "interpolations"]
    check(draw(loaded, data, tmp_path), names, tmp_path)


def test_pictures_of_ones_own_choice(stripes, tmp_path):
    trained = as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    seen = []

    def own(context):
        seen.append(context.shown.x.shape)
        return figures.plot_samples(context.shown.x / 255.0, title="own", columns=5)

    chosen = {"own": own, "never": lambda context: None}
    check(draw(trained, stripes, tmp_path, pictures=chosen), ["own"], tmp_path)
    assert seen == [(10, 4, 4, 1)]


@pytest.mark.slow
def test_a_seed_changes_the_samples_only(stripes, tmp_path):
    trained = as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    paths = {
        name: draw(trained, stripes, tmp_path / name, seed=seed)
        for name, seed in (("a", None), ("b", 0), ("c", 1))
    }
    for a, b, c in zip(*paths.values(), strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert (a.read_bytes() == c.read_bytes()) == (a.stem != "samples")


def test_ten_examples_one_of_each_class_first(stripes):
    rows = panels.choose_examples(stripes.test)
    assert len(set(rows)) == 10
    assert list(stripes.test.labels[rows[:8]]) == list(range(8))
    assert panels.choose_examples(stripes.test[:3]) == [
        int(i) for i in np.argsort(stripes.test.labels[:3])
    ]
    unlabelled = dataclasses.replace(stripes.test, labels=None)
    assert panels.choose_examples(unlabelled) == list(range(10))


def test_code_maps_show_colours(monkeypatch):
    """What codes distinguish may be colours alone."""
    seen = []
    x = np.random.default_rng(0).integers(0, 256, (60, 4, 4, 3)).astype(np.uint8)
    data = from_arrays(x)
    model = build_vqvae(data.shape, filters=(4,), num_codes=8, code_width=2)
    monkeypatch.setattr(figures, "plot_rows", lambda rows, *_, **__: seen.append(rows))
    run = as_run(model, data, objective=Quantization())
    pictures.code_maps(Context(trained=run, dataset=data, title="t"))
    shown = panels.choose_examples(data.test)
    np.testing.assert_allclose(seen[0][0], data.test.x[shown] / 255, atol=1e-6)


def test_a_row_per_class(stripes):
    labels, names = panels.choose_classes(stripes)
    assert labels.shape == (8, 12) and names == list("01234567")
    np.testing.assert_array_equal(labels[:, 0], range(8))
    plain = dataclasses.replace(stripes, class_names=None)
    assert panels.choose_classes(plain)[1] == list("01234567")


def test_the_dimensions_of_largest_variance():
    codes = np.random.default_rng(0).normal(size=(99, 4)) * [1, 2, 0.1, 3]
    assert panels.choose_dims(codes) == (1, 3)
    assert panels.choose_dims(codes[:, :1]) == (0,)


def test_panels_are_what_the_model_decodes(stripes, key):
    trained = as_run(build_vae(stripes.shape, 2, hidden=(8,)), stripes)
    grid = panels.manifold(trained, (0, 1), steps=3)
    assert grid.shape == (3, 3, 4, 4, 1)
    center = trained.decode(np.zeros((1, 2), np.float32)).mean[0]
    np.testing.assert_allclose(grid[1, 1], center, atol=1e-6)
    split = stripes.test[:5]
    images, decoded = panels.reconstructions(trained, split)
    np.testing.assert_allclose(images, split.x / 255.0, atol=1e-6)
    np.testing.assert_allclose(decoded, trained.reconstruct(split.x), atol=1e-6)
    paths, ends = panels.interpolations(trained, split, steps=4)
    assert paths.shape == (2, 4, 4, 4, 1)
    np.testing.assert_allclose(paths[1, 0], decoded[2], atol=1e-5)
    np.testing.assert_allclose(paths[1, -1], decoded[3], atol=1e-5)
    np.testing.assert_allclose(ends[1], images[1:4:2], atol=1e-6)


@pytest.mark.slow
def test_code_maps_give_equal_entries_equal_colours(stripes):
    model = build_vqvae(stripes.shape, num_codes=6, code_width=2, filters=(4,))
    trained = fit(model, stripes, objective=Quantization(), **SMALL)
    q = trained.encode(stripes.test.x)
    maps = panels.code_maps(trained, np.asarray(q.mean), (4, 4))
    assert maps.shape == (len(stripes.test), 4, 4, 3)
    assert maps.min() >= 0 and maps.max() <= 1
    H, W = trained.code_shape[:2]
    entries = np.asarray(q.indices)[:, np.arange(4) * H // 4][
        :, :, np.arange(4) * W // 4
    ]
    for entry in np.unique(entries):
        colors = np.unique(maps[entries == entry].round(5), axis=0)
        assert len(colors) == 1


def test_every_picture_is_listed_under_its_kind():
    kinds = [value for name, value in vars(pictures).items() if "_PICTURES" in name]
    assert len(kinds) == 14
    for kind in kinds:
        assert all(callable(picture) for picture in kind.values())
    listed = [pictures.SPACE_PICTURES, *sum(pictures.PICTURES_OF.values(), ())]
    assert {*map(id, listed)} == {*map(id, kinds)}  # no captions are missing


def test_a_class_that_the_test_split_lacks(stripes, tmp_path):
    test = stripes.test
    some = test[np.flatnonzero(~np.isin(test.labels, [0, 3]))]
    data = dataclasses.replace(stripes, test=some, class_names=("a", "b", "c", "d"))
    trained = as_run(build_vae(data.shape, 2, hidden=(8,)), data)
    chosen = [*COMMON[1:], "interpolations"]  # those of test examples
    check(draw(trained, data, tmp_path, pictures=chosen), chosen, tmp_path)
    labels, names = panels.choose_classes(data)
    assert names == ["a", "b", "c", "d", "4", "5", "6", "7"] and len(labels) == 8


@pytest.mark.parametrize("condition", ["classes", "vectors"])
def test_conditions_that_are_not_the_labels(stripes, tmp_path, titles, condition):
    def with_conditions(split):
        vectors = np.eye(8, dtype=np.float32)[split.labels]
        other = {"classes": (split.labels + 1) % 8, "vectors": vectors}[condition]
        return dataclasses.replace(split, condition=other)

    parts = {name: with_conditions(getattr(stripes, name)) for name in SPLITS}
    data = dataclasses.replace(stripes, **parts, class_names=tuple("abcdefgh"))
    size = {"classes": {"num_classes": 8}, "vectors": {"condition_width": 8}}
    vae = build_vae(data.shape, 2, hidden=(8,), conditional="concat", **size[condition])
    trained = as_run(vae, data)
    shown = data.test[:10]
    conditions, names = panels.choose_conditions(trained, data, shown)
    if condition == "classes":
        assert conditions.shape == (8, 12) and names == list("01234567")
    else:
        assert names is None
        np.testing.assert_array_equal(conditions[:, 3], shown.condition)
    chosen = {n: pictures.CONDITIONAL_PICTURES[n] for n in ("class_samples",)}
    check(draw(trained, data, tmp_path, pictures=chosen), ["class_samples"], tmp_path)
    each = {"classes": "each class", "vectors": "conditions of test examples"}
    assert titles["class_samples"] == f"Samples of {each[condition]}: stripes"


@pytest.mark.parametrize("shape", [(120, 1, 1), (1, 120, 1), (1, 1, 1)])
def test_pictures_of_images_of_any_shape(shape, tmp_path):
    rng = np.random.default_rng(0)
    data = from_arrays(rng.random((60, *shape), np.float32), name="odd")
    trained = as_run(build_vae(data.shape, 1, hidden=(8,)), data)
    # Of one shape all of them, of the others those that show images.
    chosen = None if shape[0] > 1 else list(pictures.VAE_PICTURES)[2:6]
    for path in draw(trained, data, tmp_path, pictures=chosen):
        with PIL.Image.open(path) as picture:
            width, height = np.divide(picture.size, COARSE)
        assert 110 <= height <= 2_800 and 400 <= width <= 2_000


@pytest.mark.slow
def test_large_images_are_decoded_a_few_at_once(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    data = from_arrays(rng.random((40, 200, 200, 3), np.float32), name="large")
    small = {"epochs": 1, "batch_size": 8, "progress": False}
    trained = fit(build_vae(data.shape, 2, hidden=(2,)), data, **small)
    monkeypatch.setattr(panels, "NUMBERS", 20 * 200 * 200 * 3)
    sizes = []
    decode = type(trained).decode

    def watch(self, z, condition=None):
        sizes.append(len(z))
        return decode(self, z, condition)

    monkeypatch.setattr(type(trained), "decode", watch)
    shown = panels.manifold(trained, (0, 1))
    assert shown.shape == (12, 12, 200, 200, 3)  # less than twice their place
    assert max(sizes) == 20 and sum(sizes) == 144
    monkeypatch.setattr(panels, "WIDTH", 600)
    assert panels.manifold(trained, (0, 1)).shape == (12, 12, 50, 50, 3)
    images = panels.samples(trained, 30, key=trained.key, columns=30)
    assert images.shape == (30, 20, 20, 3)
    assert len(np.unique(images.reshape(30, -1), axis=0)) > 20  # a key for each part
    check(
        draw(trained, data, tmp_path),
        ["training_curves", *COMMON[1:], "manifold", "samples", "interpolations"],
        tmp_path,
    )


def test_rows_of_some_classes_are_not_each_class():
    def describe(size, rows):
        vae = build_vae((2,), 2, conditional="concat", **size)
        context = SimpleNamespace(trained=SimpleNamespace(model=vae))
        return pictures._describe_rows(context, rows)

    assert describe({"num_classes": 300}, 20) == "the first 20 of 300 classes"
    assert describe({"num_classes": 20}, 20) == "each class"
    assert describe({"condition_width": 3}, 20) == "conditions of test examples"
