"""The rooms of docs/architecture.md: which room may import which, and no circle among files."""

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = "deepsvdd_jax"
PACKAGES = (LIBRARY, "experiments", "benchmarks")

# Rooms and files that must work without a compiler at hand.
WITHOUT_JAX = (
    *("configs", "recipes", "io", "datasets", "preprocessing", "viz"),
    *("scoring.metrics", "scoring.calibration", "scoring.cross_calibration", "scoring.drift"),
    "scoring.tradeoff",
)


def documented_rooms() -> dict[str, set[str]]:
    """Reads the only list of rooms: room -> rooms that it may import."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w./]+?)/?` \|.*\| ([^|]+) \|$", text, flags=re.MULTILINE)
    rooms: dict[str, set[str]] = {}
    for name, cell in rows:
        # What is no room (jax, standard library, a dash) is no arrow.
        words = set(re.findall(r"[\w/]+", cell))
        rooms[name] = set(rooms) if cell.strip() == "all above" else words & set(rooms)
    return rooms


ROOMS = documented_rooms()
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
EVERYTHING = ROOT / LIBRARY / "__init__.py"


def module_of(path: Path) -> str:
    """Returns a file's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def room_of(module: str) -> str:
    """Returns the room that a module of the project belongs to, the innermost of the table."""
    inner = module.removeprefix(f"{LIBRARY}.").replace(".", "/")
    fitting = [room for room in ROOMS if inner == room or inner.startswith(f"{room}/")]
    return max(fitting, key=len, default="")


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


def modules_imported(path: Path) -> set[str]:
    """Returns the modules of the project that a file imports."""
    found = set()
    for name in set(imported(path)) - {f"{LIBRARY}.__version__"}:
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        found.add(name)
    return found - {""}


def test_every_file_has_a_room() -> None:
    assert {module for module in MODULES if not room_of(module)} == {LIBRARY}


def test_every_room_has_a_file() -> None:
    assert {room_of(module) for module in MODULES} - {""} == set(ROOMS)


def test_the_rooms_stand_below_what_imports_them() -> None:
    above: list[str] = []
    for room, below in ROOMS.items():
        assert below <= set(above), f"{room} stands above a room that it imports"
        above.append(room)


def test_no_circle_among_files() -> None:
    graph = {module: modules_imported(path) - {module} for module, path in MODULES.items()}
    # The package's own face imports nearly all of it and is for users alone.
    del graph[LIBRARY]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_of_a_file(path: Path) -> None:
    module, found = module_of(path), packages(path)
    room = room_of(module)
    below = modules_imported(path)
    assert "tests" not in found
    if path != EVERYTHING:
        # Benchmarks call the library as a user does.
        assert LIBRARY not in below or room == "benchmarks"
        allowed = ROOMS[room] | {room, "faces", ""}
        assert {room_of(name) for name in below} <= allowed
    if module.startswith(LIBRARY):
        assert not found & {"experiments", "benchmarks"}
    if not room.startswith("cli") and module.startswith(LIBRARY):
        assert "absl" not in found
    if room not in ("networks", "benchmarks"):
        assert "flax" not in found
    inner = module.removeprefix(f"{LIBRARY}.")
    if inner.startswith(WITHOUT_JAX):
        assert not found & {"jax", "jaxlib", "optax"}
    if room == "configs":
        assert found <= set(sys.stdlib_module_names) | {LIBRARY}


def test_the_import_reader_sees_what_it_is_to_find(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "import os.path\nfrom deepsvdd_jax import configs\n"
        "def late():\n    from deepsvdd_jax.runs import run_epochs\n    import flax.linen as nn\n"
    )
    assert set(imported(path)) == {
        "os.path",
        "deepsvdd_jax.configs",
        "deepsvdd_jax.runs.run_epochs",
        "flax.linen",
    }
    assert packages(path) == {"os", "deepsvdd_jax", "flax"}
    assert modules_imported(path) == {"deepsvdd_jax.configs", "deepsvdd_jax.runs"}
    assert room_of("deepsvdd_jax.runs.phases") == "runs"
    assert room_of("deepsvdd_jax.cli.sweeps.plans") == "cli/sweeps"
