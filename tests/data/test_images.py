"""A folder of image files."""

import os
import struct
import zlib

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


def test_a_file_of_the_same_size_and_time_is_seen(tmp_path):
    """As ``cp -p`` and ``rsync -t`` leave it."""
    folder = tmp_path / "a"
    folder.mkdir()
    for i in range(3):
        PIL.Image.fromarray(np.full((5, 5), 9 * i, np.uint8)).save(folder / f"{i}.bmp")
    options = {"validation_size": 0, "test_size": 0}
    assert load(folder, **options).train.x.max() == 18
    before = (folder / "1.bmp").stat()
    PIL.Image.fromarray(np.full((5, 5), 200, np.uint8)).save(folder / "1.bmp")
    os.utime(folder / "1.bmp", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (folder / "1.bmp").stat().st_size == before.st_size
    assert load(folder, **options).train.x.max() == 200


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


STORED = {  # EXIF orientation: how an upright image is stored
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("png", {}),
        ("jpg", {"quality": 95}),
        ("webp", {"lossless": True}),
        ("tif", {}),
    ],
)
def test_the_orientation_is_applied(tmp_path, name, options):
    upright = np.zeros((8, 12), np.uint8)
    upright[:4, :6], upright[:2, :2] = 255, 100
    upright = np.stack([upright] * 3, -1)
    (tmp_path / "a").mkdir()
    for orientation, turn in STORED.items():
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        image = PIL.Image.fromarray(np.ascontiguousarray(turn(upright)))
        image.save(tmp_path / "a" / f"{orientation}.{name}", exif=exif, **options)
    x = load(tmp_path / "a", test_size=0, validation_size=0).train.x
    assert x.shape == (8, 8, 12, 3)
    np.testing.assert_allclose(x, np.stack([upright] * 8), atol=6)


def test_arrays_of_an_older_reader_are_not_reused(tmp_path, monkeypatch):
    fill(tmp_path / "a")
    keys = []
    monkeypatch.setattr(
        "flaxvae.data.images.cached_arrays",
        lambda key, names, make: (
            keys.append(key)
            or {
                name: array.read() if name == "x" else array
                for name, array in make().items()
            }
        ),
    )
    load(tmp_path / "a")
    load(tmp_path / "a", image_size=5)
    assert len(set(keys)) == 2
    assert all(key.startswith("images-2-") for key in keys)


def png_of_16_bits(colour_type, channels):
    """A file that Pillow cannot write: 4 x 4 pixels."""

    def chunk(kind, content):
        checked = kind + content
        size, checksum = len(content), zlib.crc32(checked)
        return struct.pack(">I", size) + checked + struct.pack(">I", checksum)

    rows = RNG.integers(0, 65536, (4, 4, channels)).astype(">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    header = struct.pack(">IIBBBBB", 4, 4, 16, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts), rows


def test_grey_levels_of_16_bits_are_read_whole(tmp_path):
    (tmp_path / "a").mkdir()
    content, rows = png_of_16_bits(0, 1)
    (tmp_path / "a" / "0.png").write_bytes(content)
    dataset = load(tmp_path / "a")
    np.testing.assert_array_equal(dataset.train.x[0], rows)
    assert dataset.train.x.dtype == np.uint16
    assert dataset.preprocessing.max_value == 65535
    PIL.Image.fromarray(rows[..., 0].astype(np.uint16)).save(tmp_path / "a" / "0.tif")
    (tmp_path / "a" / "0.png").unlink()
    np.testing.assert_array_equal(load(tmp_path / "a").train.x[0], rows)
    assert load(tmp_path / "a", max_value=65535, image_size=2).shape == (2, 2, 1)


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_colours_of_16_bits_are_refused(tmp_path, colour_type):
    channels = {2: 3, 4: 2, 6: 4}[colour_type]
    (tmp_path / "0.png").write_bytes(png_of_16_bits(colour_type, channels)[0])
    with pytest.raises(InputError, match=r"0\.png cannot be read: it has 16 bits"):
        load(tmp_path)


def frames(path):
    first, *others = (PIL.Image.fromarray(GREYS[i]) for i in range(2))
    first.save(path, save_all=True, append_images=others)


GREYS = RNG.integers(0, 256, (3, 8, 6), dtype=np.uint8)
COLOUR = PIL.Image.fromarray(RNG.integers(0, 256, (8, 6, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "write", "shape"),
    [
        ("a.BMP", COLOUR.save, (8, 6, 3)),
        ("a.webp", COLOUR.save, (8, 6, 3)),
        ("a.TIFF", COLOUR.save, (8, 6, 3)),
        ("a.gif", COLOUR.save, (8, 6, 3)),
        ("a.png", COLOUR.convert("1").save, (8, 6, 1)),
        ("a.png", COLOUR.convert("L").convert("LA").save, (8, 6, 4)),
        ("a.tif", COLOUR.convert("CMYK").save, (8, 6, 3)),
        ("a.png", lambda p: COLOUR.convert("P").save(p, transparency=1), (8, 6, 4)),
        (
            "a.tif",
            lambda p: PIL.Image.fromarray(np.float32(GREYS[0] / 255)).save(p),
            (8, 6, 1),
        ),
        ("a.gif", frames, "holds 2 pages or frames"),
        ("a.png", frames, "holds 2 pages or frames"),
        ("a.tif", frames, "holds 2 pages or frames"),
        ("a.webp", frames, "holds 2 pages or frames"),
        ("a.tif", PIL.Image.new("LAB", (6, 8)).save, "colours are of the kind LAB"),
        (
            "a.tif",
            PIL.Image.fromarray(GREYS[0].astype(np.int32) * 999).save,
            "beyond 16 bits",
        ),
        ("a.png", lambda p: p.write_bytes(b"\0\0\0\x18ftypheic"), "it is a HEIC image"),
        ("a.png", lambda p: p.write_bytes(b"<!doctype html>"), "it is an HTML page"),
        (
            "a.png",
            lambda p: p.write_bytes(b"\x89PNG\r\n\x1a\n\0\0"),
            "it is damaged or",
        ),
        ("a.png", lambda p: p.write_bytes(b""), "it is empty"),
        (
            "a.heic",
            lambda p: p.write_bytes(b"1"),
            r"must hold image .*got files of .heic",
        ),
        ("a.png", lambda p: p.symlink_to("nowhere"), r"a\.png cannot be read: No such"),
    ],
)
def test_kinds_of_files(tmp_path, name, write, shape):
    folder = tmp_path / "images"
    folder.mkdir()
    write(folder / name)
    if isinstance(shape, tuple):
        assert load(folder).shape == shape
        return
    with pytest.raises(InputError, match=shape) as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_images_of_any_size_are_resized_with_antialiasing(tmp_path):
    for i, size in enumerate([(64, 64), (128, 32), (9, 200)]):
        checkers = np.indices(size).sum(0) % 2 * 255
        write(tmp_path / "a" / f"{i}.png", checkers.astype(np.uint8))
    dataset = load(tmp_path / "a", image_size=8, test_size=0, validation_size=0)
    assert dataset.shape == (8, 8, 1)
    assert dataset.notes == ("images are resized to 8 x 8 pixels",)
    assert (
        abs(dataset.train.x[0].astype(int) - 127).max() < 20
    )  # an aliased one: 0, 255
    assert load(tmp_path / "a", image_size=(4, 6)).shape == (4, 6, 1)


def test_grey_images_among_colours_become_colours(tmp_path):
    images = fill(tmp_path / "a", 3)
    write(tmp_path / "a" / "grey.png", images[0, ..., 0])
    for _ in range(2):  # read, and from the cache
        dataset = load(tmp_path / "a", test_size=0, validation_size=0)
        grey = np.repeat(images[0, ..., :1], 3, -1)
        np.testing.assert_array_equal(dataset.train.x[-1], grey)
        assert dataset.notes == ("1 images with fewer than 3 channels get them",)


FOLDERS = [  # folders of images, sizes of the splits, classes, a word of a note
    ("train/a train/b val/a val/b test/a test/b", (4, 4, 4), "ab", "val (validation)"),
    ("Train VALID Testing", (2, 2, 2), "", "splits by folder"),
    ("train/a dev/a", (2, 2, 0), "a", "dev (validation)"),
    ("train/a test/a test/b", (2, 0, 4), "ab", "labels by folder: a, b"),
    ("train", (2, 0, 0), "", "splits by folder: train"),
    ("train plane", (4, 0, 0), ("plane", "train"), "labels by folder: plane, train"),
    ("train test plane", (2, 0, 2), "", "beside the splits, plane are left out"),
    ("a b __MACOSX .ipynb_checkpoints", (4, 0, 0), "ab", "labels by folder: a, b"),
    (
        "training_set/a training_set/b Test-Images/a",
        (4, 0, 2),
        "ab",
        "training_set (tr",
    ),
    ("images/train images/val labels/train!", (2, 2, 0), "", "those in images/"),
    ("a/train a/test b/train", (6, 0, 0), "ab", "test, train inside classes are not"),
    ("all/a/x all/a/y all/b", (6, 0, 0), "ab", "images are those in all/"),
    ("val test", "must hold a folder train beside test, val", "", ""),
    ("train val dev", "one folder for validation, got dev, val", "", ""),
    ("train/a test", "a folder for each class, as the other splits do", "", ""),
    ("train val!", r"val must hold image files \(.*got none", "", ""),
]


@pytest.mark.parametrize(("places", "sizes", "classes", "note"), FOLDERS)
def test_folders_of_splits_and_classes(tmp_path, places, sizes, classes, note):
    folder = tmp_path / "mine"
    for place in places.split():
        if place.endswith("!"):
            (folder / place[:-1]).mkdir(parents=True)
        else:
            fill(folder / place, 2)
    (folder / "Thumbs.db").write_bytes(b"")
    if isinstance(sizes, str):
        with pytest.raises(InputError, match=sizes):
            load(folder, test_size=0, validation_size=0)
        return
    dataset = load(folder, test_size=0, validation_size=0)
    parts = (dataset.train, dataset.validation, dataset.test)
    assert tuple(map(len, parts)) == sizes
    assert (dataset.class_names or ()) == tuple(classes)
    assert note in "; ".join(dataset.notes)


def test_links_are_followed_once(tmp_path):
    fill(tmp_path / "real", 3)
    fill(tmp_path / "mine" / "a", 2)
    (tmp_path / "mine" / "b").symlink_to(tmp_path / "real")
    (tmp_path / "mine" / "a" / "again").symlink_to(tmp_path / "mine" / "a")
    dataset = load(tmp_path / "mine", test_size=0, validation_size=0)
    assert dataset.class_names == ("a", "b")
    assert sorted(dataset.train.labels) == [0, 0, 1, 1, 1]
