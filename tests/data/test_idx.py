import gzip

import numpy as np
import pytest

from flaxvae.checks import InputError
from flaxvae.data.idx import read_idx
from tests.data.conftest import idx_bytes, md5

IMAGES = np.arange(24).reshape(2, 3, 4)
CONTENT = idx_bytes(IMAGES)


@pytest.mark.parametrize(
    "content", [CONTENT, gzip.compress(CONTENT, mtime=0)], ids=["raw", "gz"]
)
def test_reads_plain_and_gzipped_files(tmp_path, content):
    path = tmp_path / "images"
    path.write_bytes(content)
    array = read_idx(path, 3, md5(CONTENT))
    assert array.dtype == np.uint8
    np.testing.assert_array_equal(array, IMAGES)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "truncated"),
        (CONTENT[:3], "truncated"),
        (CONTENT[:9], "must hold"),
        (CONTENT[:-1], r"must hold 40 bytes for shape \(2, 3, 4\), got 39"),
        (CONTENT + b"x", "got 41"),
        (b"\x00\x00\x0d\x03" + CONTENT[4:], "begins with 00000d03, expected 00000803"),
        (idx_bytes(np.arange(5)), "begins with 00000801"),
        (gzip.compress(CONTENT, mtime=0)[:-9], "damaged gzip"),
        (gzip.compress(CONTENT, mtime=0)[:20] + b"\xff" * 9, "damaged gzip"),
        (b"\x1f\x8b", "damaged gzip"),
        (CONTENT[:-1] + b"\x00", "MD5"),
    ],
)
def test_a_bad_file_gets_one_clear_line(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_idx(path, 3, md5(CONTENT))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_idx(tmp_path / "no", 3)
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_idx(tmp_path, 3)


def test_any_damage_raises_only_the_projects_own_error(tmp_path):
    """Bytes flipped, cut and inserted at random, in plain and gzipped files."""
    rng = np.random.default_rng(0)
    path = tmp_path / "images"
    for original in (CONTENT, gzip.compress(CONTENT, mtime=0)):
        for _ in range(200):
            damaged = bytearray(original)
            place = rng.integers(len(damaged))
            match rng.integers(3):
                case 0:
                    damaged[place] ^= 1 << rng.integers(8)
                case 1:
                    del damaged[place:]
                case 2:
                    damaged[place:place] = rng.bytes(rng.integers(1, 9))
            path.write_bytes(bytes(damaged))
            try:
                np.testing.assert_array_equal(read_idx(path, 3, md5(CONTENT)), IMAGES)
            except InputError:
                continue
