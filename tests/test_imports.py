"""The house: imports go downward without circles, and ``import flaxvae`` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import flaxvae

ROOT = Path(flaxvae.__file__).parent
FLOORS = {
    "batch": 1,
    "capabilities": 1,
    "checks": 1,
    "collectives": 1,
    "compiler": 1,
    "distributions": 1,
    "dtypes": 1,
    "files": 1,
    "schedules": 1,
    "settings": 1,
    "threefry": 1,
    "types": 1,
    "models": 2,
    "nn": 2,
    "objectives": 2,
    "data": 3,
    "interop": 3,
    "training": 3,
    "evaluation": 4,
    "latent": 4,
    "estimators": 5,
    "run_data": 5,
    "run": 5,
}
HEAVY = (
    "grain",
    "matplotlib",
    "orbax",
    "pandas",
    "polars",
    "pyarrow",
    "safetensors",
    "scipy",
    "sklearn",
    "tensorflow",
    "tensorflow_datasets",
    "torch",
)


def part_of(path: Path) -> str:
    """The folder, or the file at the top, that a file belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_files(path: Path) -> set[Path]:
    """The files of flaxvae that a file imports, inside functions and for types too."""
    files = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            files |= {find_module(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in {path}"
            for alias in node.names:  # a module, or a name of one
                module = find_module(f"{node.module}.{alias.name}")
                files.add(module or find_module(node.module))
    return files - {None}


def find_module(name: str) -> Path | None:
    first, *rest = name.split(".")
    path = ROOT.joinpath(*rest)
    if first != "flaxvae":
        return None
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in candidates if file.is_file()), None)


EDGES = {path: imported_files(path) for path in sorted(ROOT.rglob("*.py"))}
INIT = ROOT / "__init__.py"


def find_circle(edges: dict) -> list:
    """The nodes on circles, and those that lead from one circle to another."""
    edges = {node: set(targets) for node, targets in edges.items()}
    for _ in range(2):  # remove what leads nowhere, then what nothing leads to
        while leaves := {node for node, targets in edges.items() if not targets}:
            edges = {n: t - leaves for n, t in edges.items() if n not in leaves}
        reversed_edges = {node: set() for node in edges}
        for node, targets in edges.items():
            for target in targets:
                reversed_edges[target].add(node)
        edges = reversed_edges
    return sorted(map(str, edges))


def test_a_circle_is_found():
    line = {"a": {"b"}, "b": {"c"}, "c": set()}
    assert find_circle(line) == []
    assert find_circle(line | {"c": {"b"}}) == ["b", "c"]
    assert find_circle({"a": {"a"}}) == ["a"]


def test_imports_of_every_form_are_found(tmp_path):
    file = tmp_path / "file.py"
    file.write_text(
        "import jax, flaxvae.files\n"
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from flaxvae.data.dataset import Dataset\n"
        "def f():\n    from flaxvae.data import Split, tables\n"
        "    from flaxvae import checks\n"
    )
    names = {path.relative_to(ROOT).as_posix() for path in imported_files(file)}
    assert names == {
        "files.py",
        "data/dataset.py",
        "data/__init__.py",
        "data/tables.py",
        "checks.py",
    }


def test_every_part_has_a_floor():
    assert {part_of(path) for path in EDGES} - {"__init__"} == FLOORS.keys()


def test_a_file_imports_from_its_own_floor_or_below():
    wrong = [
        f"{path.relative_to(ROOT)} imports {target.relative_to(ROOT)}"
        for path, targets in EDGES.items()
        for target in targets - {INIT}
        if path != INIT and FLOORS[part_of(target)] > FLOORS[part_of(path)]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles_between_files():
    circle = find_circle(EDGES)
    assert not circle, "\n".join(circle)


def test_no_circles_between_folders():
    folders = {name: set() for name in FLOORS}
    for path, targets in EDGES.items():
        if path != INIT:
            reached = {part_of(target) for target in targets}
            folders[part_of(path)] |= reached - {part_of(path)}
    assert not find_circle(folders)


def test_any_is_the_exception():
    lines = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in EDGES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Name) and node.id == "Any"
    ]
    assert len(set(lines)) <= 50, "\n".join(sorted(lines))


def test_only_figures_imports_matplotlib():
    users = {
        path.relative_to(ROOT).as_posix()
        for path in EDGES
        if "matplotlib" in path.read_text() and path.name != "__init__.py"
    }
    assert users
    assert {user for user in users if not user.startswith("latent/figures/")} == set()


def test_import_is_light_and_the_core_trains_without_the_optional_packages():
    code = f"""
import logging, sys
import flaxvae
others = {(*HEAVY, "PIL", "tyro")!r}
heavy = [name for name in others if name in sys.modules]
assert not heavy, heavy
assert not logging.getLogger().handlers
import jax
assert not jax._src.xla_bridge._backends, "a device was touched"
for name in others:
    sys.modules[name] = None  # importing it fails
import numpy as np
x = np.arange(640).reshape(40, 4, 4) % 256
data = flaxvae.data.from_arrays(x, np.arange(40) % 2)
vae = flaxvae.models.build_vae(data.shape, 2, hidden=(4,))
run = flaxvae.fit(vae, data, epochs=2, batch_size=4, progress=False)
assert run.encode(data.test.x).mean.shape == (len(data.test), 2)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
