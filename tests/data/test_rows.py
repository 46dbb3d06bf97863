"""Arrays larger than memory (here small ones) are read in pieces and stay the same."""

import mmap
from pathlib import Path

import numpy as np
import pytest

import flaxvae
from flaxvae.checks import InputError
from flaxvae.data import Preprocessing, load, rows
from flaxvae.data.rows import Rows, blocks, extent, open_rows


@pytest.fixture(autouse=True)
def everything_is_large(monkeypatch):
    monkeypatch.setattr(rows, "LAZY_BYTES", 0)
    monkeypatch.setattr(rows, "BLOCK_BYTES", 1000)


@pytest.fixture
def on_disk(tmp_path):
    def write(x, name="x.npy"):
        np.save(tmp_path / name, x)
        return np.load(tmp_path / name, mmap_mode="r")

    return write


@pytest.mark.parametrize(
    "index",
    [
        slice(3, 17),
        slice(None, None, -2),
        slice(40, 40),
        [5, 2, 2],
        np.array([49, 0, 7]),
        np.arange(50) % 3 == 0,
    ],
    ids=["run", "backwards", "none", "list", "array", "mask"],
)
def test_an_index_reads_what_it_reads_of_an_array(on_disk, index):
    x = np.random.default_rng(0).normal(size=(50, 4, 3))
    chosen = open_rows(on_disk(x))[index]
    assert isinstance(chosen, Rows)
    np.testing.assert_array_equal(np.asarray(chosen), x[index])
    assert (chosen.shape, chosen.ndim, len(chosen), chosen.nbytes) == (
        x[index].shape,
        3,
        len(x[index]),
        x[index].nbytes,
    )
    if len(chosen):
        np.testing.assert_array_equal(chosen[0], x[index][0])
        np.testing.assert_array_equal(np.asarray(chosen[::-1][:2]), x[index][::-1][:2])


def test_types_change_as_rows_are_read(on_disk):
    x = np.random.default_rng(0).normal(size=(50, 4))
    single = open_rows(on_disk(x)).astype(np.float32)
    assert (single.dtype, single.nbytes) == (np.float32, 800)
    read = np.asarray(single[10:])
    np.testing.assert_array_equal(read, x[10:].astype(np.float32))
    read[:] = 0  # a copy, not the file


def test_rows_are_prepared_as_the_array_that_they_are(on_disk):
    x = np.arange(60, dtype=np.uint8).reshape(5, 12)
    for seen in (
        Preprocessing(max_value=255.0),
        Preprocessing(max_value=255.0, dequantize=True),
    ):
        prepared = np.asarray(seen.prepare(open_rows(on_disk(x))[1:]))
        np.testing.assert_array_equal(prepared, np.asarray(seen.prepare(x[1:])))


def test_blocks_are_all_rows_in_order_and_small(on_disk):
    x = np.random.default_rng(0).normal(size=(99, 10))
    parts = list(blocks(open_rows(on_disk(x))))
    assert max(part.nbytes for part in parts) <= 1000
    np.testing.assert_array_equal(np.concatenate(parts), x)
    assert extent(open_rows(on_disk(x))) == (x.min(), x.max())
    x[57, 3] = np.nan
    assert np.isnan(extent(open_rows(on_disk(x)))).all()


def test_only_what_is_asked_for_is_in_memory(on_disk):
    maps = Path("/proc/self/smaps")
    if not maps.exists():
        pytest.skip("the system does not say what is resident")
    array = on_disk(np.ones((4096, mmap.PAGESIZE), np.uint8))

    def resident():
        _, _, rest = maps.read_text().partition(Path(array.filename).name)
        return int(rest.split("Rss:")[1].split()[0])  # kB

    lazy = open_rows(array)
    assert len(list(blocks(lazy))) > 100
    assert np.asarray(lazy[::7]).all()
    assert resident() < 1000
    assert array[::2].sum() > 0  # through the map
    assert resident() > 4000


def test_a_part_of_a_file_is_read_from_where_it_begins(on_disk):
    x = np.random.default_rng(0).normal(size=(5000, 3))
    part = open_rows(on_disk(x)[1234:])
    np.testing.assert_array_equal(np.asarray(part[[0, 9]]), x[[1234, 1243]])
    columns = open_rows(on_disk(x)[:, :2])  # not in one piece: as it is
    assert isinstance(columns, np.memmap)


def test_a_file_that_became_shorter_is_named(on_disk, tmp_path):
    lazy = open_rows(on_disk(np.zeros((500, 10))))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-100])
    assert np.asarray(lazy[:400]).shape == (400, 10)
    with pytest.raises(InputError, match=r"x\.npy has become shorter"):
        np.asarray(lazy)


def same_data(a, b):
    for split in ("train", "validation", "test"):
        one, two = getattr(a, split), getattr(b, split)
        assert isinstance(two.x, Rows)
        assert not isinstance(one.x, Rows)
        np.testing.assert_array_equal(one.x, np.asarray(two.x))
    assert a.describe() == b.describe()
    assert a.shape == b.shape


IMAGES = np.random.default_rng(0).integers(0, 256, (60, 8, 8))
ARRAYS = {
    "grey levels": IMAGES.astype(np.uint8),
    "wide integers": IMAGES,
    "16 bits": IMAGES.astype(np.uint16) * 200,
    "zeros and ones": IMAGES[..., None] > 99,
    "colours in float64": np.stack([IMAGES] * 3, -1) / 255.0,
    "a table": IMAGES[:, :3].reshape(60, 24) * np.linspace(-3, 7, 24),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_a_large_file_is_the_data_set_of_a_small_one(tmp_path, monkeypatch, name):
    np.save(tmp_path / "x.npy", ARRAYS[name])
    large = load(tmp_path / "x.npy")
    monkeypatch.setattr(rows, "LAZY_BYTES", 2**30)
    small = load(tmp_path / "x.npy")
    if small.is_table:  # moments by sums in another order
        for moment in ("mean", "std"):
            a, b = (
                getattr(d.preprocessing.standardization, moment) for d in (small, large)
            )
            np.testing.assert_allclose(a, b, rtol=1e-6)
        monkeypatch.setattr(
            type(large), "describe", lambda self: self.fingerprint(), raising=True
        )
    same_data(small, large)


@pytest.mark.parametrize(
    ("bad", "message"),
    [(np.nan, "got NaN or infinity in 1 of"), (1.5, "must hold floats in 0 to 1")],
)
def test_bad_values_are_found_in_every_block(tmp_path, bad, message):
    x = np.zeros((60, 8, 8), np.float32)
    x[41, 3, 3] = bad
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(InputError, match=message):
        load(tmp_path / "x.npy", test_size=0, validation_size=0)


def test_what_needs_memory_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", ARRAYS["grey levels"])
    with pytest.raises(InputError, match="binarize must be dynamic or threshold"):
        load(tmp_path / "x.npy", binarize="static")
    assert load(tmp_path / "x.npy", binarize="threshold").levels == 2


def test_a_run_on_rows_is_the_run_on_their_array(tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", ARRAYS["grey levels"])
    options = {"epochs": 2, "batch_size": 16, "progress": False}
    runs = []
    for limit in (0, 2**30):
        monkeypatch.setattr(rows, "LAZY_BYTES", limit)
        data = load(tmp_path / "x.npy")
        vae = flaxvae.models.build_vae(data.shape, 2, hidden=(8,))
        trained = flaxvae.fit(vae, data, **options)
        test = flaxvae.evaluation.evaluate_elbo(trained, data.test)
        codes = np.asarray(trained.encode(data.test.x[[3, 1]]).mean)
        runs.append((trained.history, test, codes.tolist()))
    assert runs[0] == runs[1]
