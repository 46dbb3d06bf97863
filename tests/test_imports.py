"""The house: imports go downward, and ``import flaxvae`` stays light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import flaxvae

ROOT = Path(flaxvae.__file__).parent
FLOORS = {
    "batch": 1,
    "checks": 1,
    "files": 1,
    "schedules": 1,
    "distributions": 1,
    "objectives": 1,
    "nn": 2,
    "models": 2,
    "data": 3,
    "training": 3,
    "interop": 3,
    "evaluation": 4,
    "latent": 4,
}
HEAVY = (
    "grain",
    "matplotlib",
    "orbax",
    "safetensors",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
)


def place(path: Path) -> str:
    """The folder, or the file at the top, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def own_imports(path: Path) -> set[str]:
    """The places of flaxvae that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {n.split(".")[1] for n in names if n.startswith("flaxvae.")}


FILES = [
    p for p in sorted(ROOT.rglob("*.py")) if p.parent != ROOT or place(p) in FLOORS
]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_imports_from_its_own_floor_or_below(path):
    here = FLOORS[place(path)]
    above = {n for n in own_imports(path) if FLOORS.get(n, here) > here}
    assert not above, f"{path.name} is on floor {here} and imports {above}"


def test_every_part_has_a_floor():
    parts = {place(p) for p in ROOT.rglob("*.py")} - {"__init__"}
    assert parts == FLOORS.keys()


def test_no_circles_between_folders():
    edges = {name: set() for name in FLOORS}
    for path in FILES:
        edges[place(path)] |= own_imports(path) & FLOORS.keys() - {place(path)}
    while leaves := [name for name, targets in edges.items() if not targets]:
        for leaf in leaves:
            del edges[leaf]
        for targets in edges.values():
            targets.difference_update(leaves)
    assert not edges, f"circle among {sorted(edges)}"


def test_only_figures_imports_matplotlib():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if "matplotlib" in path.read_text() and path.name != "__init__.py"
    }
    assert users
    assert {user for user in users if not user.startswith("latent/figures/")} == set()


def test_the_core_trains_without_the_optional_packages():
    code = f"""
import sys
for name in {(*HEAVY, "PIL", "tyro")!r}:
    sys.modules[name] = None  # importing it fails
import numpy as np
import flaxvae
split = flaxvae.data.Split(np.zeros((8, 4, 4, 1), np.uint8))
data = flaxvae.data.Dataset("zeros", split, split, split, max_value=255.0)
vae = flaxvae.models.build_vae(data.shape, 2, hidden=(4,))
trained = flaxvae.training.fit(vae, data, epochs=2, batch_size=4, progress=False)
assert trained.encode(split.x).mean.shape == (8, 2)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_import_is_light():
    code = f"""
import sys, logging
import flaxvae
heavy = [name for name in {HEAVY!r} if name in sys.modules]
assert not heavy, heavy
assert not logging.getLogger().handlers
import jax
assert not jax._src.xla_bridge._backends, "a device was touched"
"""
    subprocess.run([sys.executable, "-c", code], check=True)
