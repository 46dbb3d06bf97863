"""Damaged files and odd arrays: whatever it is, it is read or an `InputError`."""

import gzip
import resource
import shutil
import time

import numpy as np
import PIL.Image
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import scipy.io

from flaxvae.checks import InputError
from flaxvae.data import from_arrays, load
from flaxvae.data.binarized_mnist import read_amat
from flaxvae.data.idx import read_idx

FEW, MANY = 15, 1000  # damaged files for each reader; the latter in all 11,000
ODD, VERY_ODD = 400, 10_000  # arrays, files and folders of random names and kinds
CPU_SECONDS, MEGABYTES = 1.0, 500  # that one file may take

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (20, 6, 5), dtype=np.uint8)
LABELS = np.arange(20) % 3


def idx_bytes():
    sizes = b"".join(n.to_bytes(4, "big") for n in X.shape)
    return bytes([0, 0, 8, 3]) + sizes + X.tobytes()


def amat_bytes():
    return "\n".join(" ".join("01"[v % 2] for v in range(784)) for _ in "ab").encode()


def write_table(path):
    table = pyarrow.table({"a": [1.5, 2.0, None] * 9, "b": ["x", "y", "z"] * 9})
    if path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        pyarrow.parquet.write_table(table, path)


def read_table(path):
    return load(path, categorical=["b"], impute="mean")


def write_image(path):
    path.parent.mkdir()
    PIL.Image.fromarray(X[0]).save(path)
    PIL.Image.fromarray(X[1]).save(path.with_name("other.png"))


def read_folder(path):
    return load(path.parent, test_size=0, validation_size=0)


READERS = {
    "a.idx": (lambda p: p.write_bytes(idx_bytes()), lambda p: read_idx(p, 3)),
    "a.idx.gz": (
        lambda p: p.write_bytes(gzip.compress(idx_bytes())),
        lambda p: read_idx(p, 3),
    ),
    "a.amat": (lambda p: p.write_bytes(amat_bytes()), lambda p: read_amat(p, 2)),
    "a.amat.gz": (
        lambda p: p.write_bytes(gzip.compress(amat_bytes())),
        lambda p: read_amat(p, 2),
    ),
    "a.npy": (lambda p: np.save(p, X), load),
    "a.npz": (lambda p: np.savez_compressed(p, x=X, y=LABELS), load),
    "a.mat": (lambda p: scipy.io.savemat(p, {"X": X, "y": LABELS[:, None]}), load),
    "a.csv": (write_table, read_table),
    "a.parquet": (write_table, read_table),
    "images/a.png": (write_image, read_folder),
    "images/a.jpg": (write_image, read_folder),
}


def damage(content, rng):
    """Flips, cuts, inserts, repeats or blanks a few bytes."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        place = int(rng.integers(0, len(data) + 1))
        length = int(rng.integers(1, 1 + max(1, len(data) // 8)))
        match rng.integers(0, 6):
            case 0:
                if place < len(data):
                    data[place] ^= 1 << int(rng.integers(0, 8))
            case 1:
                del data[place:]
            case 2:
                data[place:place] = rng.bytes(min(length, 64))
            case 3:
                data[place:place] = data[place : place + length]
            case 4:
                data[place : place + length] = bytes(len(data[place : place + length]))
            case 5:
                if place < len(data):
                    data[place] = int(rng.integers(0, 256))
    return bytes(data)


SEPARATORS = [",", ";", "\t", "|", " "]
CELLS = [
    lambda rng: str(rng.integers(-5, 2000)),
    lambda rng: f"{rng.normal():.3f}",
    lambda rng: f"{rng.normal():.2f}".replace(".", ","),
    lambda rng: rng.choice(["a", "b", "c", "é"]),
    lambda rng: rng.choice(["", "NA", "?", "1", "2.5", "-"]),
    lambda rng: rng.choice(["yes", "no", "True", "false"]),
    lambda rng: "".join(rng.choice(list("abc,;\t|\n\r\" é€'#=01.eE+-\0"), 6)),
    lambda rng: f"20{rng.integers(10, 30)}-0{rng.integers(1, 10)}-17",
    lambda rng: f"2024-05-17{rng.choice(['T', ' '])}01:02:03{rng.choice(['', 'Z'])}",
    lambda rng: str(10 ** int(rng.integers(10, 25))),
    lambda rng: rng.choice(["inf", "nan", "1e400", "1e-400", "0x1F", "1_0", "1,234"]),
]
HEADERS = ["a", "b", "", "Unnamed: 0", "x y", "é", '"q"', "1"]


def random_text(rng):
    """A table of random cells with random separators, quotes and encodings."""
    separator = str(rng.choice(SEPARATORS))
    count = int(rng.integers(1, 6))
    kinds = rng.integers(0, len(CELLS), count)
    has_quotes = rng.random() < 0.5

    def cell(kind):
        text = str(CELLS[kind](rng))
        is_plain = not set(text) & set(separator + '"\n\r')
        if has_quotes or (not is_plain and rng.random() < 0.98):
            return '"' + text.replace('"', '""') + '"'
        return text

    lines = []
    if rng.random() < 0.1:
        lines.append(rng.choice(["sep=;", "# a comment", "", "#", "sep=,"]))
    if rng.random() < 0.7:
        names = [f"{rng.choice(HEADERS)}{i}" for i in range(count)]
        lines.append(separator.join(names[: -1 if rng.random() < 0.1 else None]))
    for _ in range(rng.integers(0, 40)):
        line = separator.join(cell(kind) for kind in kinds)
        if rng.random() < 0.01:
            line = line[: len(line) // 2]
        lines.append(line + separator * (rng.random() < 0.01))
    text = str(rng.choice(["\n", "\r\n", "\r"])).join(lines)
    encoding = rng.choice(["utf-8", "utf-8-sig", "latin-1", "cp1252", "utf-16"])
    return text.encode(encoding, "replace")


def random_options(rng):
    options = {"impute": str(rng.choice(["mean", "mask"]))}
    for name, values in {
        "separator": SEPARATORS,
        "header": ["yes", "no"],
        "decimal": [".", ","],
        "encoding": ["utf-8", "latin-1", "utf-16", "none"],
        "missing_values": ["0", "a"],
    }.items():
        if rng.random() < 0.1:
            options[name] = str(rng.choice(values))
    return options


@pytest.mark.parametrize("count", [150, pytest.param(10_000, marks=pytest.mark.slow)])
def test_only_input_errors_come_out_of_random_text(count, tmp_path):
    path = tmp_path / "a.csv"
    read = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        path.write_bytes(random_text(rng))
        began = time.process_time()
        try:
            dataset = load(path, **random_options(rng), test_size=0, validation_size=0)
            schema = dataset.preprocessing.schema
            x = dataset.train.x
            assert schema.decode(x).num_rows == len(x)
            read += 1
        except InputError as error:
            assert "\n" not in str(error), (seed, str(error))
        except Exception as error:
            raise AssertionError(f"text number {seed}") from error
        assert time.process_time() - began < CPU_SECONDS, seed
    assert read > count // 4


@pytest.mark.parametrize("count", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", READERS)
def test_only_input_errors_come_out_of_damaged_files(name, count, tmp_path):
    write, read = READERS[name]
    path = tmp_path / name
    write(path)
    content = path.read_bytes()
    read(path)
    rng = np.random.default_rng(1)
    refused = 0
    # A .mat file is read by a process of its own: half a second each.
    for i in range(count if name != "a.mat" else count // 10):
        damaged = damage(content, rng)
        path.write_bytes(damaged)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        began = time.process_time()
        try:
            read(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error), (i, str(error))
        except Exception as error:
            (tmp_path / "culprit").write_bytes(damaged)
            raise AssertionError(f"{tmp_path}/culprit, number {i}") from error
        assert time.process_time() - began < CPU_SECONDS, i
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MEGABYTES * 1024, i
    assert refused > count // 40


WORDS = [
    "x",
    "X",
    "y",
    "train",
    "val",
    "dev",
    "Test",
    "labels",
    "data",
    "images",
    "meta",
    "a",
]
DTYPES = [
    "u1",
    "i2",
    "u2",
    "i8",
    "u8",
    "f2",
    "f4",
    "f8",
    "?",
    "c8",
    "U3",
    "S2",
    "M8[D]",
    "O",
    "V4",
]
SUFFIXES = [".npy", ".npz", ".NPZ", ".csv", ".CSV", ".parquet", ".png", ".txt", ""]
FOLDERS = ["train", "val", "dev", "Test", "cat", "dog", "__MACOSX", ".hidden"]
MODES = ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "F", "CMYK"]
FORMATS = ["png", "jpg", "tif", "gif", "webp", "bmp", "PNG"]


def choose(rng, values):
    return values[int(rng.integers(0, len(values)))]


def make_odd_array(rng):
    """An array of any type and shape, perhaps with gaps or objects."""
    ndim = int(choose(rng, [0, 1, 2, 2, 3, 3, 4, 4, 5]))
    shape = tuple(int(n) for n in rng.choice([0, 1, 2, 3, 4, 9, 20], ndim))
    if ndim and rng.random() < 0.9:
        shape = (20, *(max(1, n) for n in shape[1:]))
    kind = choose(rng, DTYPES)
    values = rng.integers(0, choose(rng, [2, 9, 256, 70_000]), shape)
    if kind == "V4":
        return np.zeros(shape, [("a", "f4"), ("b", choose(rng, ["i4", "U2"]))])
    with np.errstate(all="ignore"):
        array = np.asarray(values).astype(kind)
    if kind in ("f4", "f8") and rng.random() < 0.5:
        array = array / choose(rng, [1, 255, 127.5]) - choose(rng, [0, 0, 1])
        if array.size and rng.random() < 0.3:
            array.flat[0] = choose(rng, [np.nan, np.inf])
    if kind == "O" and array.size and rng.random() < 0.5:
        array.flat[-1] = choose(rng, [None, "text", {}, [1]])
    return array


def make_odd_values(rng):
    """An odd array, perhaps masked or as a list."""
    array = make_odd_array(rng)
    change = int(rng.integers(0, 8))
    if change == 0 and array.dtype in (np.uint8, np.float32):
        return np.ma.masked_equal(array, 1)
    return array.tolist() if change == 1 else array


def make_odd_batches(rng):
    """Batches of a generator; some do not fit the others."""
    x = rng.integers(0, 256, (10, 4, choose(rng, [4, 5])), dtype=np.uint8)
    for _ in range(int(rng.integers(0, 4))):
        part = x if rng.random() < 0.8 else make_odd_values(rng)
        labels = np.arange(len(x)) if rng.random() < 0.8 else make_odd_values(rng)
        kinds = [part, (part, labels), [part, labels], {"image": part, "y": labels}]
        yield choose(rng, kinds[:2] if rng.random() < 0.8 else kinds)


def write_odd_file(rng, folder):
    path = folder / f"a{choose(rng, SUFFIXES)}"
    kind = int(rng.integers(0, 4))
    with path.open("wb") as file:
        if kind == 0:
            file.write(rng.bytes(int(rng.integers(0, 200))))
        elif kind == 1:
            np.save(file, make_odd_array(rng))
        else:
            names = {
                choose(rng, ["", "_"]).join(choose(rng, WORDS) for _ in range(count))
                for count in rng.integers(1, 3, 4)
            }
            arrays = {name: make_odd_array(rng) for name in names}
            np.savez(file, **arrays)
    return path


def write_odd_folder(rng, folder):
    for _ in range(int(rng.integers(0, 7))):
        depth = int(rng.integers(0, 3))
        place = folder.joinpath(*(choose(rng, FOLDERS) for _ in range(depth)))
        place.mkdir(parents=True, exist_ok=True)
        if rng.random() < 0.1:
            continue
        size = (choose(rng, [5, 5, 5, 6]), 4)
        grey = rng.integers(0, choose(rng, [2, 256]), size).astype(np.uint8)
        image = PIL.Image.fromarray(grey).convert("RGB")
        mode = choose(rng, MODES)
        if mode in ("LA", "I;16", "F"):
            image = image.convert("L")
        exif = PIL.Image.Exif()
        exif[0x0112] = int(rng.integers(0, 11))
        path = place / f"{rng.integers(0, 9)}.{choose(rng, FORMATS)}"
        try:
            image.convert(mode).save(path, exif=exif)
        except (OSError, KeyError, ValueError):  # a mode that the format lacks
            path.write_bytes(rng.bytes(20))
    folder.mkdir(exist_ok=True)
    return folder


def choose_options(rng, is_folder):
    options = {
        "image_shape": [(2, 2), (3, 3, 1), (20,)],
        "image_order": ["F"],
        "image_size": [4, (3, 5)] if is_folder else [4],
        "max_value": [1, 255, 4095, 0.5],
        "impute": ["mean", "median"],
        "binarize": ["threshold"],
        "test_size": [0, 0.5, 30],
        "validation_size": [0, 3],
        "num_examples": [1, 7],
    }
    chosen = [name for name in options if rng.random() < 0.05]
    return {name: choose(rng, options[name]) for name in chosen}


def check_one(rng, folder):
    """Reads one odd thing; whether it was read."""
    kind = int(rng.integers(0, 4))
    options = choose_options(rng, kind == 3)
    try:
        if kind == 0:
            labels = make_odd_values(rng) if rng.random() < 0.3 else None
            test = make_odd_values(rng) if rng.random() < 0.2 else None
            dataset = from_arrays(make_odd_values(rng), labels, test=test, **options)
        elif kind == 1:
            dataset = load(make_odd_batches(rng), **options)
        else:
            write = write_odd_file if kind == 2 else write_odd_folder
            dataset = load(write(rng, folder), **options)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)
        return False
    assert len(dataset.train)
    seen = np.asarray(dataset.preprocessing.prepare(np.asarray(dataset.train.x)))
    assert seen.shape == (len(dataset.train), *dataset.shape)
    assert np.isfinite(seen).all()
    if dataset.layout == "images":
        assert seen.min() >= 0 and seen.max() <= 1 + 1e-6
        assert dataset.shape[-1] <= 4
    return True


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [ODD, pytest.param(VERY_ODD, marks=pytest.mark.slow)])
def test_odd_arrays_files_and_folders_are_read_or_refused(count, tmp_path):
    read = 0
    for seed in range(count):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        began = time.process_time()
        try:
            read += check_one(np.random.default_rng(seed), folder)
        except Exception as error:
            raise AssertionError(f"seed {seed}, {folder}") from error
        assert time.process_time() - began < CPU_SECONDS, seed
        shutil.rmtree(folder)
    assert count // 20 < read < count
