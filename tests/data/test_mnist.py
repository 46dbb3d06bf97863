import dataclasses
import gzip
import shutil

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import load, mnist
from flaxvae.data.download import DownloadError
from flaxvae.files import cache_folder


def set_urls(monkeypatch, *urls):
    source = dataclasses.replace(mnist.SETS["mnist"], urls=urls)
    monkeypatch.setitem(mnist.SETS, "mnist", source)


def test_a_folder_of_idx_files(small_mnist):
    dataset = mnist.load_mnist(small_mnist)
    assert dataset.train.x.shape == (30, 28, 28, 1)
    assert dataset.test.x.shape == (10, 28, 28, 1)
    assert dataset.train.x.dtype == np.uint8
    assert dataset.preprocessing.max_value == 255
    np.testing.assert_array_equal(dataset.test.labels, np.arange(10))
    raw = gzip.decompress((small_mnist / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert dataset.test.x.tobytes() == raw[16:]


def test_unzipped_files_give_the_same(small_mnist):
    zipped = mnist.load_mnist(small_mnist)
    for path in list(small_mnist.iterdir()):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    plain = mnist.load_mnist(small_mnist)
    np.testing.assert_array_equal(zipped.train.x, plain.train.x)


def test_a_second_start_decodes_nothing(small_mnist, monkeypatch):
    mnist.load_mnist(small_mnist)
    monkeypatch.setattr(mnist, "read_idx", None)
    dataset = mnist.load_mnist(small_mnist)
    assert isinstance(dataset.train.x, np.memmap)


def test_a_changed_file_is_not_mistaken_for_the_cached_one(small_mnist):
    mnist.load_mnist(small_mnist)
    path = small_mnist / "train-labels-idx1-ubyte.gz"
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[-1] ^= 1
    path.write_bytes(gzip.compress(bytes(content)))
    with pytest.raises(InputError, match="must have the MD5 checksum"):
        mnist.load_mnist(small_mnist)


def test_missing_folder_and_missing_files(small_mnist, tmp_path):
    with pytest.raises(InputError, match="data_dir must be a folder"):
        mnist.load_mnist(tmp_path / "no")
    (small_mnist / "train-images-idx3-ubyte.gz").unlink()
    with pytest.raises(InputError, match="data_dir must hold train-images-idx3-ubyte"):
        mnist.load_mnist(small_mnist)


def test_download_prepares_tfds_folder_once(small_mnist, tmp_path, monkeypatch):
    set_urls(monkeypatch, f"file://{small_mnist}/")
    first = mnist.load_mnist()
    prepared = tmp_path / "tfds" / "mnist" / "3.0.1"
    assert (prepared / "dataset_info.json").exists()

    set_urls(monkeypatch, "file:///nowhere/")
    monkeypatch.setattr(mnist, "read_idx", None)
    second = mnist.load_mnist()
    assert isinstance(second.train.x, np.memmap)  # from the cache, nothing decoded
    np.testing.assert_array_equal(first.train.x, second.train.x)
    np.testing.assert_array_equal(first.test.labels, second.test.labels)
    # The records alone do, and the folder may be named.
    shutil.rmtree(tmp_path / "tfds" / "downloads")
    third = mnist.load_mnist(tmp_path / "tfds")
    np.testing.assert_array_equal(first.test.x, third.test.x)


def test_an_interrupted_preparation_is_repeated(small_mnist, tmp_path, monkeypatch):
    set_urls(monkeypatch, f"file://{small_mnist}/")

    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("PIL.Image.fromarray", interrupt)
        with pytest.raises(KeyboardInterrupt):
            mnist.load_mnist()
    prepared = tmp_path / "tfds" / "mnist" / "3.0.1"
    assert not prepared.exists()
    assert len(mnist.load_mnist().train) == 30
    assert prepared.exists()


def test_records_in_tensorflows_format_are_left_alone(
    small_mnist, tmp_path, monkeypatch
):
    set_urls(monkeypatch, f"file://{small_mnist}/")
    theirs = tmp_path / "tfds" / "mnist" / "3.0.1"
    theirs.mkdir(parents=True)
    (theirs / "dataset_info.json").write_text('{"fileFormat": "tfrecord"}')
    assert len(mnist.load_mnist().train) == 30
    assert [p.name for p in theirs.iterdir()] == ["dataset_info.json"]


def test_an_unwritable_folder_falls_back_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "file" / "tfds"))
    dataset = load("auto")
    assert dataset.name == "digits"
    assert "cannot be written (Not a directory)" in dataset.notes[0]


def test_auto_falls_back_to_the_digits_and_says_so(monkeypatch):
    def no_connection(*args, **kwargs):
        raise DownloadError("the server could not be reached (no route)")

    monkeypatch.setattr(mnist, "download", no_connection)
    dataset = load("auto")
    assert dataset.name == "digits"
    for part in ("digits", "MNIST", "no route", "--data_dir", "connect"):
        assert part in dataset.notes[0]
    assert "\n" not in dataset.notes[0]
    with pytest.raises(InputError, match=r"'mnist' cannot be had.*--data_dir.*digits"):
        load("mnist")


def test_auto_is_mnist_if_it_is_on_disk(small_mnist):
    dataset = load("auto", data_dir=small_mnist, validation_size=3)
    assert dataset.name == "mnist"
    assert dataset.notes == ()
    assert len(dataset.train) == 27


def test_the_cache_key_names_the_source(small_mnist):
    mnist.load_mnist(small_mnist)
    (folder,) = cache_folder().iterdir()
    assert folder.name.startswith("mnist-idx-")


def test_the_second_address_is_used_if_the_first_fails(
    small_mnist, tmp_path, monkeypatch
):
    set_urls(monkeypatch, "file:///nowhere/", f"file://{small_mnist}/")
    assert len(mnist.load_mnist().train) == 30


def test_a_relative_is_read_and_its_zipped_files_are_checked(small_mnist, monkeypatch):
    """Checksums of the unpacked files are not published for all sets."""
    small = dataclasses.replace(mnist.SETS["kmnist"], md5_gz=mnist.SETS["mnist"].md5_gz)
    monkeypatch.setitem(mnist.SETS, "kmnist", small)
    dataset = load("kmnist", data_dir=small_mnist)
    assert dataset.name == "kmnist"
    assert dataset.class_names[1] == "ki"
    path = small_mnist / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), mtime=1))
    with pytest.raises(InputError, match="must have the MD5 checksum"):
        load("kmnist", data_dir=small_mnist)
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
    assert len(load("kmnist", data_dir=small_mnist).train) == 28


def test_a_run_of_mnist_reads_it_again_offline_from_its_folder(
    small_mnist, tmp_path, monkeypatch
):
    from flaxvae.data import recorded

    folder = tmp_path / "tfds" / "downloads" / "mnist"
    shutil.copytree(small_mnist, folder)
    prepared = tmp_path / "tfds" / "mnist" / "3.0.1"
    prepared.mkdir(parents=True)
    dataset = load("auto", validation_size=5)
    described = dataset.describe()
    assert described["source"]["config"]["dataset"] == "mnist"
    assert described["source"]["config"]["data_dir"] == str(tmp_path / "tfds")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "elsewhere"))
    assert recorded.read_again(described).fingerprints() == dataset.fingerprints()
    shutil.rmtree(folder)

    def fail(*_):
        raise DownloadError("there is no network")

    monkeypatch.setattr(mnist, "download", fail)
    with pytest.raises(InputError, match="the run's data 'mnist' cannot be read") as e:
        recorded.read_again(described)
    assert "--data_dir=FOLDER" in str(e.value) and "digits" not in str(e.value)
    found = recorded.find_own(described, data_dir=small_mnist)
    assert found is not None and found.name == "mnist"
