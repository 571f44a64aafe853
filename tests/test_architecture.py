"""The rooms of docs/architecture.md: which module may import which."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "deepsvdd_jax"

# Module: the modules of the library that it may import.
ROOMS: dict[str, set[str]] = {
    "configs": set(),
    "presets": {"configs"},
    "npz": set(),
    "datasets": {"npz", "configs"},
    "preprocessing": {"configs"},
    "convolution": set(),
    "networks": {"convolution", "configs"},
    "objectives": {"configs"},
    "training": {"objectives", "networks", "configs"},
    "scoring": {"training", "objectives", "networks", "configs"},
    "runs": {
        "npz",
        "configs",
        "presets",
        "datasets",
        "preprocessing",
        "convolution",
        "networks",
        "objectives",
        "training",
        "scoring",
    },
    "streaming": {"runs", "scoring", "training", "networks", "configs"},
    "metrics": set(),
    "knn": set(),
    "baselines": {"metrics", "knn"},
    "checkpoints": {"npz", "configs"},
    "plots": {"metrics"},
    "reports": set(),
    "initialization": {"checkpoints", "configs"},
    "calibration": {"metrics", "configs"},
    "detectors": {
        "runs",
        "streaming",
        "scoring",
        "training",
        "networks",
        "preprocessing",
        "datasets",
        "metrics",
        "checkpoints",
        "initialization",
        "calibration",
        "configs",
    },
    "exports": {"detectors", "scoring", "training", "networks", "checkpoints", "configs"},
    "estimator": {"detectors", "calibration", "checkpoints", "presets", "configs"},
}
WITHOUT_JAX = {
    *("npz", "datasets", "preprocessing", "configs", "presets", "metrics", "calibration"),
    *("plots", "reports", "knn"),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def room_of(path: Path) -> str:
    """Returns the module of the table that a file belongs to; `__init__` for the package's own."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yields the dotted names that a file imports, those within functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imported(path)}


def rooms_imported(path: Path) -> set[str]:
    parts = [name.split(".") for name in imported(path)]
    return {names[1] for names in parts if names[0] == PACKAGE.name} - {room_of(path)}


def documented_rooms() -> dict[str, set[str]]:
    """Reads the table of docs/architecture.md."""
    rooms: dict[str, set[str]] = {}
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name, cell in re.findall(r"^\| `(\w+)/?` \|.*\| ([^|]+) \|$", text, flags=re.MULTILINE):
        if cell == "all above":
            rooms[name] = set(rooms)
        else:
            # What is not a module of the library (jax, standard library, a dash) is no arrow.
            rooms[name] = {word for word in re.findall(r"\w+", cell) if word in ROOMS}
    return rooms


def test_the_table_is_the_documented_one() -> None:
    assert documented_rooms() == ROOMS


def test_every_module_has_a_room() -> None:
    assert {room_of(path) for path in FILES} - {"__init__"} == set(ROOMS)


def test_the_table_has_no_circle() -> None:
    above: set[str] = set()
    while above != set(ROOMS):
        free = {name for name, below in ROOMS.items() if below <= above}
        assert free > above, f"a circle among {sorted(set(ROOMS) - above)}"
        above = free


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_of_a_module(path: Path) -> None:
    room = room_of(path)
    allowed = set(ROOMS) if room == "__init__" else ROOMS[room]
    assert rooms_imported(path) <= allowed
    found = packages(path)
    assert not found & {"absl", "experiments", "benchmarks", "tests"}
    if room != "networks":
        assert "flax" not in found
    if room in WITHOUT_JAX:
        assert not found & {"jax", "jaxlib", "optax"}
    if room == "configs":
        assert found <= set(sys.stdlib_module_names)


def test_the_import_reader_sees_what_it_is_to_find(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\nfrom deepsvdd_jax import configs\n"
        "def late():\n    from deepsvdd_jax.runs import run_epochs\n    import flax.linen as nn\n"
    )
    names = set(imported(path))
    assert names == {
        "os.path",
        "deepsvdd_jax.configs",
        "deepsvdd_jax.runs.run_epochs",
        "flax.linen",
    }
    assert packages(PACKAGE / "networks.py") >= {"flax", "jax"}
    assert rooms_imported(PACKAGE / "networks.py") == {"convolution", "configs"}
