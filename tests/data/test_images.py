"""A folder of image files."""

import numpy as np
import PIL.Image
import pytest

from flaxvae.checks import InputError
from flaxvae.data import load

RNG = np.random.default_rng(0)


def write(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(image).save(path)


def fill(folder, count=10, shape=(7, 6, 3)):
    """Writes images, and returns them in the order of their names."""
    images = RNG.integers(0, 256, (count, *shape), dtype=np.uint8)
    for i, image in enumerate(images):
        write(folder / f"{i:03}.png", image)
    return images


def test_sub_folders_are_classes(tmp_path):
    images = {kind: fill(tmp_path / "pets" / kind) for kind in ("cat", "dog")}
    dataset = load(tmp_path / "pets")
    assert dataset.name == "pets"
    assert dataset.shape == (7, 6, 3)
    assert dataset.class_names == ("cat", "dog")
    assert (len(dataset.train), len(dataset.validation), len(dataset.test)) == (
        17,
        1,
        2,
    )
    assert sorted(dataset.test.labels) == [0, 1]
    known = {bytes(x): i for i, kind in enumerate(images) for x in images[kind]}
    for x, label in zip(dataset.train.x, dataset.train.labels, strict=True):
        assert known[bytes(x)] == label


def test_train_and_test_folders_are_splits(tmp_path):
    train, test = fill(tmp_path / "train"), fill(tmp_path / "test", 4)
    dataset = load(tmp_path, validation_size=0)
    np.testing.assert_array_equal(dataset.train.x, train)
    np.testing.assert_array_equal(dataset.test.x, test)
    assert dataset.train.labels is None


def test_a_second_start_decodes_nothing_and_a_changed_file_is_seen(
    tmp_path, monkeypatch
):
    images = fill(tmp_path / "a", shape=(5, 5))
    load(tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.open", None)
        assert load(tmp_path / "a").shape == (5, 5, 1)
    write(tmp_path / "a" / "000.png", 255 - images[0])
    x = load(tmp_path / "a", validation_size=0, test_size=0).train.x
    np.testing.assert_array_equal(x[0, ..., 0], 255 - images[0])


def test_palettes_and_jpegs_are_read(tmp_path):
    write(tmp_path / "a" / "0.png", np.zeros((4, 4, 3), np.uint8))
    image = PIL.Image.fromarray(np.full((4, 4, 3), 200, np.uint8))
    image.convert("P").save(tmp_path / "a" / "1.png")
    image.save(tmp_path / "a" / "2.jpg")
    x = load(tmp_path / "a", validation_size=0, test_size=0).train.x
    np.testing.assert_allclose(x[1:], 200, atol=6)


def cut(path):
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: [p.unlink() for p in f.iterdir()], "must hold image files"),
        (
            lambda f: write(f / "x.png", np.zeros((9, 9), np.uint8)),
            "must have one size, .*--image_size",
        ),
        (lambda f: cut(f / "003.png"), "003.png cannot be read"),
        (lambda f: (f / "003.png").write_text("no"), "003.png cannot be read"),
        (lambda f: write(f / "b" / "0.png", np.zeros((7, 6, 3), np.uint8)), "beside"),
        (
            lambda f: write(f / "000.png", np.zeros((7, 6), np.uint16)),
            "must have one kind",
        ),
    ],
)
def test_bad_folders_are_refused(tmp_path, spoil, message):
    fill(tmp_path / "a")
    spoil(tmp_path / "a")
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path / "a")
    assert "\n" not in str(error.value)
