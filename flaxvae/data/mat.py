"""MATLAB's .mat files, read by SciPy in a separate process.

Damaged files can crash SciPy's reader and with it the process that called it.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SECONDS = 60  # limit for reading one file
READ = """
import sys
import numpy as np
from scipy.io import loadmat

for name, array in loadmat(sys.argv[1], appendmat=False).items():
    if name.isidentifier() and not name.startswith("__"):
        np.save(f"{sys.argv[2]}/{name}.npy", array, allow_pickle=False)
"""


def read_mat(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .mat file by name; cells and structures are not read.

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
        return {file.stem: np.load(file, allow_pickle=False) for file in files}
