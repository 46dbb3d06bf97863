import shutil
import subprocess
import sys

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data import tfds

X = np.random.default_rng(0).integers(0, 256, (12, 9, 7, 1)).astype(np.uint8)
LABELS = np.arange(12) % 3
SPLITS = {"train": (X[:8], LABELS[:8]), "test": (X[8:], LABELS[8:])}


def prepare(folder):
    return tfds.prepare_images(
        folder, name="tiny", version="1.2.3", splits=SPLITS, num_classes=3
    )


def test_what_is_prepared_is_read_back_in_order(tmp_path):
    prepared = prepare(tmp_path)
    assert tfds.find_prepared(tmp_path, "tiny") == prepared
    arrays = tfds.read_prepared(prepared)
    np.testing.assert_array_equal(arrays["train_x"], X[:8])
    np.testing.assert_array_equal(arrays["test_x"], X[8:])
    np.testing.assert_array_equal(arrays["test_labels"], LABELS[8:])
    assert isinstance(tfds.read_prepared(prepared)["train_x"], np.memmap)


def test_tensorflow_datasets_itself_reads_it_without_tensorflow(tmp_path):
    prepare(tmp_path)
    code = f"""
import sys
import tensorflow_datasets as tfds
source = tfds.builder_from_directory(r"{tmp_path}/tiny/1.2.3").as_data_source("train")
assert len(source) == 8 and source[3]["image"].shape == (9, 7, 1)
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_classes_are_those_of_the_label(tmp_path):
    """Another feature of classes may have names, too, and come first by name."""
    prepared = prepare(tmp_path)
    (prepared / "azimuth.labels.txt").write_text("north\nsouth\n")
    assert tfds.read_class_names(prepared, "azimuth") == ("north", "south")
    label = prepared / "label.labels.txt"
    label.unlink(missing_ok=True)
    assert tfds.load_tfds("tiny", tmp_path).class_names == ("0", "1", "2")
    label.write_text("cat\ndog\nowl\n")
    assert tfds.load_tfds("tiny", tmp_path).class_names == ("cat", "dog", "owl")


def test_nothing_is_found_where_nothing_was_finished(tmp_path):
    assert tfds.find_prepared(tmp_path, "tiny") is None
    unfinished = tmp_path / "tiny" / "incomplete.AB_1.2.3"
    prepare(tmp_path).rename(unfinished)
    assert (unfinished / "dataset_info.json").exists()
    assert tfds.find_prepared(tmp_path, "tiny") is None


def test_the_newest_version_is_the_largest_number(tmp_path):
    prepared = prepare(tmp_path)
    shutil.copytree(prepared, prepared.with_name("1.10.0"))
    assert tfds.find_prepared(tmp_path, "tiny").name == "1.10.0"


def test_damaged_records_are_one_clear_line(tmp_path):
    prepared = prepare(tmp_path)
    (record,) = prepared.glob("*train*")
    record.write_bytes(record.read_bytes()[:100])
    with pytest.raises(InputError, match="cannot be read as a prepared data set") as e:
        tfds.read_prepared(prepared)
    assert "\n" not in str(e.value)


def test_the_validation_split_has_several_names(tmp_path):
    splits = {"train": (X[:8], LABELS[:8]), "val": (X[8:], LABELS[8:])}
    tfds.prepare_images(
        tmp_path, name="tiny", version="1.2.3", splits=splits, num_classes=3
    )
    dataset = tfds.load_tfds("tiny", tmp_path)
    np.testing.assert_array_equal(dataset.validation.x, X[8:])
    np.testing.assert_array_equal(dataset.validation.labels, LABELS[8:])
