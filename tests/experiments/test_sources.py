"""Every kind of source, from the command line to figures; bad ones, to one line."""

import gzip
import json
import re

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.io
from matplotlib.image import imread

import flaxvae
from experiments.command import run_command
from experiments.mnist_vae import Flags, main
from flaxvae.data import binarized_mnist, tfds

RNG = np.random.default_rng(0)
IMAGES = {
    "training_curves",
    "latent_scatter",
    "manifold",
    "reconstructions",
    "samples",
    "interpolations",
}
ROWS = {"training_curves", "latent_scatter", "reconstructions", "samples"}
FEW = ("--epochs=1", "--batch_size=16", "--hidden", "8", "--no_compilation_cache")


def images(*shape):
    return RNG.integers(0, 256, (120, *shape), dtype=np.uint8)


def write_npy(folder):
    np.save(folder / "a.npy", images(10, 7) / 255.0)
    return "a.npy"


def write_npz(folder):
    np.savez(folder / "a.npz", x=images(9, 8, 3), y=np.arange(120) % 3)
    return "a.npz"


def write_mat(folder):
    x = RNG.normal(7.0, 3.0, (120, 6))
    scipy.io.savemat(folder / "a.mat", {"X": x, "y": np.arange(120)[:, None] % 2})
    return "a.mat"


def make_table():
    names = np.array(["ash", "oak"])
    return pyarrow.table(
        {
            "height": RNG.normal(20.0, 4.0, 120),
            "girth": [None, *RNG.normal(1.0, 0.2, 119)],
            "tree": names[RNG.integers(0, 2, 120)],
            "label": np.arange(120) % 2,
        }
    )


TABLE_FLAGS = ("--label_column=label", "--categorical", "tree", "--impute=median")


def write_csv(folder):
    pyarrow.csv.write_csv(make_table(), folder / "a.csv")
    return ("a.csv", *TABLE_FLAGS)


def write_parquet(folder):
    pyarrow.parquet.write_table(make_table(), folder / "a.parquet")
    return ("a.parquet", *TABLE_FLAGS)


def write_folder(folder):
    for i, image in enumerate(images(12, 9, 3)):
        path = folder / "a" / ("cat" if i % 2 else "dog") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    return "a"


def write_tfds(folder):
    x, labels = images(12, 9, 3), np.arange(120) % 3
    splits = {"train": (x[:108], labels[:108]), "test": (x[108:], labels[108:])}
    tfds.prepare_images(
        folder, name="tiny", version="1.0.0", splits=splits, num_classes=3
    )
    return ("tfds:tiny", f"--data_dir={folder}")


def write_binarized(folder):
    for split, count in binarized_mnist.FILES.items():
        rows = RNG.integers(0, 2, (count, 784))
        text = "\n".join(" ".join(map(str, row)) for row in rows) + "\n"
        (folder / f"binarized_mnist_{split}.amat").write_text(text)
    return ("binarized_mnist", f"--data_dir={folder}")


def use_sprites(folder):
    return ("sprites", "--num_examples=200")


@pytest.fixture
def run_here(tmp_path, monkeypatch, capsys):
    """Runs the command in this process and folder: exit code and error lines."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        binarized_mnist, "FILES", {"train": 60, "valid": 20, "test": 20}
    )

    def run(*arguments):
        with pytest.raises(SystemExit) as error:
            run_command(main, Flags, [str(a) for a in arguments])
        return error.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("write", "figures", "shape"),
    [
        pytest.param(write_npy, IMAGES, (10, 7, 1), marks=pytest.mark.slow),
        # Without figures, which are as others'.
        pytest.param(write_npz, None, (9, 8, 3), marks=pytest.mark.slow),
        pytest.param(write_mat, None, (6,), marks=pytest.mark.slow),
        pytest.param(write_csv, ROWS, (4,), marks=pytest.mark.slow),
        pytest.param(write_parquet, None, (4,), marks=pytest.mark.slow),
        # Figures from a command are in test_mnist_vae.py, of colours in tests/latent.
        (write_folder, None, (12, 9, 3)),
        pytest.param(write_folder, IMAGES, (12, 9, 3), marks=pytest.mark.slow),
        (write_tfds, None, (12, 9, 3)),
        (write_binarized, None, (28, 28, 1)),
        pytest.param(use_sprites, IMAGES, (64, 64, 1), marks=pytest.mark.slow),
    ],
)
def test_a_source_is_trained_on_and_shown(write, figures, shape, run_here, tmp_path):
    source, *flags = np.atleast_1d(write(tmp_path)).tolist()
    flags += [] if figures else ["--no_figures"]
    has_splits = source == "binarized_mnist"
    whole = {} if figures or has_splits else {"validation_size": 0}
    flags += [f"--{name}={value}" for name, value in whole.items()]
    code, err = run_here(f"--dataset={source}", *flags, *FEW, "--workdir=run")
    assert code == 0, err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert np.isfinite(summary["test"]["elbo"])
    drawn = {path.stem for path in (tmp_path / "run").glob("figures/*")}
    assert drawn == (figures or set())
    for name in drawn:
        assert imread(tmp_path / "run" / "figures" / f"{name}.png").std() > 0
    trained = flaxvae.load(tmp_path / "run")
    assert trained.data_shape == shape
    # What was recorded takes stored examples again, in their own units.
    folder = tmp_path if "data_dir" in "".join(flags) else None
    options = {"num_examples": 200} if source == "sprites" else {}
    if source.startswith("a.") and shape == (4,):
        options = {
            "label_column": "label",
            "categorical": ("tree",),
            "impute": "median",
        }
    dataset = flaxvae.data.load(source, data_dir=folder, **whole, **options)
    assert trained.encode(dataset.test.x).mean.shape == (len(dataset.test), 2)
    assert trained.preprocessing.describe() == dataset.preprocessing.describe()


def grey(folder):
    np.save(folder / "a.npy", images(8, 8))
    return "a.npy"


def rows(folder):
    np.save(folder / "a.npy", RNG.normal(size=(120, 4)))
    return "a.npy"


def spoil(write, name, change):
    def spoiled(folder):
        source = write(folder)
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        return source

    return spoiled


def save(array):
    def write(folder):
        np.save(folder / "a.npy", array)
        return "a.npy"

    return write


def cut_idx(folder):
    header = bytes([0, 0, 8, 3]) + bytes([0, 0, 0, 5] * 3)
    for name in ("train-images-idx3", "t10k-images-idx3"):
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header)[:-9])
    for name in ("train-labels-idx1", "t10k-labels-idx1"):
        (folder / f"{name}-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 0]))
    return ("mnist", f"--data_dir={folder}")


BAD = [
    (lambda f: "a.npy", (), "'a.npy' cannot be read: No such file or directory"),
    (lambda f: "a/b", (), "'a/b' cannot be read: No such file"),
    (lambda f: "digitz", (), "unknown dataset 'digitz'.*did you mean digits"),
    (lambda f: "tfds:mnits", (), "unknown dataset 'mnits'.*did you mean mnist"),
    (lambda f: "tfds:cifar10", (), "must have been prepared in .*pip install .*tensor"),
    (lambda f: "tfds:a b", (), r"tfds:NAME\[/CONFIG\]\[:VERSION\], got 'a b'"),
    (lambda f: "mnist", ("--data_dir=nowhere",), "data_dir must be a folder"),
    (lambda f: "binarized_mnist", (), "can no longer be downloaded"),
    (lambda f: "sprites", ("--data_dir=.",), "data_dir must be left out"),
    (cut_idx, (), "damaged gzip file"),
    (spoil(grey, "a.npy", lambda b: b[:-9]), (), "a.npy cannot be read"),
    (spoil(grey, "a.npy", lambda b: b"no" + b[2:]), (), "a.npy cannot be read"),
    (spoil(write_npz, "a.npz", lambda b: b[:99]), (), "a.npz cannot be read"),
    (spoil(write_mat, "a.mat", lambda b: b[:200]), (), "a.mat cannot be read"),
    (save(np.zeros((0, 8, 8))), (), "must hold an example"),
    (save(np.zeros(9)), (), r"images \(N, H, W, C\), series"),
    (save(np.full((50, 8, 8), 255.0)), (), "floats in 0 to 1, got 255.0 to 255.0"),
    (save(np.full((50, 8, 8), -0.5)), (), "floats in 0 to 1, got -0.5"),
    (save(np.full((50, 8, 8), np.nan)), (), "finite numbers, got NaN"),
    (save(np.full((50, 3), np.inf)), (), "finite numbers, got NaN or infinity"),
    (save(np.full((50, 8), "a")), (), "must hold numbers"),
    (rows, ("--likelihood=bernoulli",), "is for values in 0 to 1.*normal"),
    (rows, ("--likelihood=categorical",), "data with levels.*normal"),
    (rows, ("--encoder=conv",), "images"),
    (rows, ("--binarize=dynamic",), "binarize must be none"),
    (rows, ("--dequantize",), "dequantize is for images"),
    (grey, ("--standardized=True",), "standardized is for tables"),
    (grey, ("--likelihood=categorical", "--levels=4"), "levels must be 256, .* got 4"),
    (grey, ("--label_column=a",), "label_column must be left out"),
    (grey, ("--num_examples=121",), "num_examples must be in 1 to 120, got 121"),
    (grey, ("--test_size=1.0", "--validation_size=119"), "must leave a training"),
    (grey, ("--test_size=0",), "test_size must leave two test examples"),
    (rows, ("--image_shape=28,28",), "rows of 28 x 28 = 784 numbers, or images"),
    (grey, ("--image_size", "8", "8"), "image_size must be left out .*not a folder"),
    (grey, ("--max_value=15",), "integers in 0 to 15, got .*such as max_value=255"),
    (lambda f: "digits", ("--image_shape=8,8",), "image_shape must be left out for"),
    (grey, ("--data_dir=.",), "data_dir must be left out where dataset is a path"),
]


@pytest.mark.parametrize(
    ("write", "flags", "message"), BAD, ids=[message for *_, message in BAD]
)
def test_a_bad_source_is_one_line_and_leaves_nothing(
    write, flags, message, run_here, tmp_path
):
    source, *more = np.atleast_1d(write(tmp_path)).tolist()
    before = sorted(tmp_path.rglob("*"))
    code, err = run_here(f"--dataset={source}", *more, *flags, *FEW, "--workdir=run")
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line), line
    after = [p for p in sorted(tmp_path.rglob("*")) if "cache" not in p.parts]
    assert [p for p in after if p not in before] == []
