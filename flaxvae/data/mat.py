"""MATLAB's .mat files, read by SciPy in a separate process.

Damaged files can crash SciPy's reader and with it the process that called it.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from flaxvae.data.convert import MAX_DENSE_BYTES

SECONDS = 60  # limit for reading one file
ARRAYS = "double single int8 uint8 int16 uint16 int32 uint32 int64 uint64"
READ = f"""
import sys
import numpy as np
from scipy.io import loadmat, whosmat

kinds = "{ARRAYS} logical char sparse".split()
wanted = []
for name, shape, kind in whosmat(sys.argv[1], appendmat=False):
    if not name.isidentifier() or name.startswith("__"):
        continue
    if kind not in kinds:
        print(name, f"a MATLAB {{kind}}, which is not read")
    elif kind == "sparse" and 8 * np.prod(np.float64(shape)) > {MAX_DENSE_BYTES}:
        print(name, "a sparse matrix too large to be stored with its zeros")
    else:
        wanted.append(name)
found = loadmat(sys.argv[1], appendmat=False, variable_names=wanted)
for name in set(wanted) & found.keys():
    array = found[name]
    array = array.toarray() if hasattr(array, "toarray") else array
    np.save(f"{{sys.argv[2]}}/{{name}}.npy", array, allow_pickle=False)
"""


def read_mat(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a .mat file by name; cells and structures are not read.

    Returns:
      The arrays, and what is not read with its kind, by name.

    Raises:
      ValueError: the file is damaged or has another format.
      OSError: it cannot be opened.
    """
    with path.open("rb"), tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-I", "-c", READ, str(path.resolve()), folder]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"reading took over {SECONDS} seconds") from error
        if done.returncode < 0:
            name = signal.Signals(-done.returncode).name
            raise ValueError(f"its reader was ended by {name}")
        if done.returncode > 0:
            lines = done.stderr.strip().splitlines() or ["unknown error"]
            raise ValueError(lines[-1].partition(": ")[2] or lines[-1])
        files = sorted(Path(folder).iterdir())
        arrays = {file.stem: np.load(file, allow_pickle=False) for file in files}
    rest = (line.partition(" ") for line in done.stdout.splitlines())
    return arrays, {name: kind for name, _, kind in rest}
