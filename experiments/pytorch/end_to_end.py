"""From the shell to a trained model: whole programs, with imports and compiling."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.pytorch.report import FLAXVAE, TUTORIAL, log

EPOCHS = 10


def time_end_to_end(data_dir: Path | None, repeats: int) -> dict[str, Any]:
    """Times ``mnist_vae`` and the tutorial's script, 784-400-20 on MNIST.

    Args:
      data_dir: folder with MNIST's IDX files.
      repeats: turns of each.

    Returns:
      For both names the ``seconds`` of each turn and the ``test_loss`` in nats per
      image; without ``data_dir`` a ``note``.
    """
    if data_dir is None:
        return {"note": "end to end: needs --data_dir with MNIST's IDX files"}
    folder = str(data_dir.expanduser())
    report: dict[str, Any] = {
        name: {"seconds": [], "test_loss": None} for name in (FLAXVAE, TUTORIAL)
    }
    for turn in range(repeats):
        for name, entry in report.items():
            run_once = _run_flaxvae if name == FLAXVAE else _run_tutorial
            seconds, entry["test_loss"] = run_once(folder)
            entry["seconds"].append(seconds)
            log(f"end to end, turn {turn + 1}, {name}: {seconds:.1f} s")
    return report


def _run_flaxvae(folder: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory() as scratch:
        workdir = Path(scratch) / "run"
        seconds, _ = _run(
            "experiments.mnist_vae",
            "--dataset=mnist",
            f"--data_dir={folder}",
            "--hidden=400",
            "--latent_dim=20",
            f"--epochs={EPOCHS}",
            "--no_figures",
            "--no_compilation_cache",
            f"--workdir={workdir}",
        )
        summary = json.loads((workdir / "summary.json").read_text())
    return seconds, -summary["test"]["elbo"]


def _run_tutorial(folder: str) -> tuple[float, float]:
    seconds, output = _run("experiments.pytorch.tutorial", folder, str(EPOCHS))
    return seconds, float(output.split()[-1])


def _run(module: str, *arguments: str) -> tuple[float, str]:
    """Seconds and standard output of a command with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | {"FLAXVAE_CACHE": cache},
            capture_output=True,
            text=True,
            check=True,
        )
        return time.perf_counter() - start, done.stdout
