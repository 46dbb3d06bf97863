import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path):
    """A user with an empty home, a folder of caches, and no network."""
    nowhere = "http://127.0.0.1:9"  # refuses every connection at once
    return os.environ | {
        "HOME": str(tmp_path / "home"),
        "FLAXVAE_CACHE": str(tmp_path / "cache"),
        "TFDS_DATA_DIR": str(tmp_path / "tfds"),
        "http_proxy": nowhere,
        "https_proxy": nowhere,
        "COLUMNS": "200",
    }


@pytest.fixture
def unrendered(monkeypatch):
    """Figures are composed, and become empty files: a third of their time."""
    monkeypatch.setattr(Figure, "savefig", lambda _, path, **__: Path(path).touch())


@pytest.fixture
def start(environment):
    """Starts ``python -m experiments.NAME ARGUMENTS`` in the checkout."""
    processes = []

    def start(name, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", f"experiments.{name}", *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start):
    """Runs a command to its end: exit code, standard output, standard error."""

    def run(name, *arguments):
        process = start(name, *arguments)
        out, err = process.communicate(timeout=120)
        return process.returncode, out, err

    return run
