"""The rooms of docs/architecture.md: which room may import which, and no circle among files.

    python tests/test_architecture.py

prints the figures of its table of sizes.
"""

import ast
import functools
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
    *("scoring.ensemble", "scoring.tradeoff"),
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


# --- the size of the house ----------------------------------------------------------------------


def eager_imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yields the imports that run when a module is loaded: not those for annotations, those within
    functions, and those of modules that are loaded on first use."""
    for node in body:
        match node:
            case ast.Import() | ast.ImportFrom():
                yield node
            case ast.If() if "TYPE_CHECKING" in ast.unparse(node.test):
                yield from eager_imports(node.orelse)
            case ast.If() | ast.Try():
                yield from eager_imports([*node.body, *node.orelse])
            case ast.With() if "lazily" not in ast.unparse(node.items[0]):
                yield from eager_imports(node.body)


@functools.cache
def public_names(package: str) -> dict[str, tuple[str, str]]:
    """Returns the module and the name behind each name that a package takes from its modules."""
    if package not in MODULES or MODULES[package].name != "__init__.py":
        return {}
    nodes = ast.walk(ast.parse(MODULES[package].read_text(encoding="utf-8")))
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def home_of(module: str, name: str) -> str:
    """Returns the module that holds a name: a package's public names are those of its modules."""
    if f"{module}.{name}" in MODULES:
        return f"{module}.{name}"
    found = public_names(module).get(name)
    return home_of(*found) if found else module


@functools.cache
def deepest_chain(module: str) -> tuple[str, ...]:
    """Returns the longest chain of modules, each of which needs the next one to be loaded."""
    nodes = list(eager_imports(ast.parse(MODULES[module].read_text(encoding="utf-8")).body))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [
        home_of(node.module or "", alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]
    below = {name for name in names if name in MODULES} - {module, LIBRARY}
    return (module, *max(map(deepest_chain, below), key=len, default=()))


OURS = [module for module in MODULES if not module.startswith("benchmarks") and module != LIBRARY]


def test_no_chain_of_imports_is_deeper_than_documented() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    documented = re.search(r"^\| deepest chain .*\| (\d+) \|$", text, flags=re.MULTILINE)
    assert documented is not None
    deepest = max(map(deepest_chain, OURS), key=len)
    assert len(deepest) <= int(documented[1]), "\n".join(deepest)


def test_a_chain_leaves_out_what_is_loaded_later(tmp_path: Path) -> None:
    text = (
        "from typing import TYPE_CHECKING\nfrom deepsvdd_jax.networks import build_network\n"
        "if TYPE_CHECKING:\n    import flax\nwith lazily():\n    import optax\n"
        "def late():\n    import jax\n"
    )
    found = [ast.unparse(node) for node in eager_imports(ast.parse(text).body)]
    assert found == [
        "from typing import TYPE_CHECKING",
        "from deepsvdd_jax.networks import build_network",
    ]
    assert home_of("deepsvdd_jax.networks", "build_network") == "deepsvdd_jax.networks.encoders"
    assert home_of("deepsvdd_jax.runs", "phases") == "deepsvdd_jax.runs.phases"


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


def _sizes() -> str:
    lengths = {module: len(MODULES[module].read_text().splitlines()) for module in OURS}
    longest = max(lengths, key=lambda module: lengths[module])
    chain = max(map(deepest_chain, OURS), key=len)
    return (
        f"files {len(lengths)}\nlines {sum(lengths.values())}\n"
        f"longest file {lengths[longest]} ({longest})\n"
        f"deepest chain of imports {len(chain)}:\n" + "\n".join(f"  {name}" for name in chain)
    )


if __name__ == "__main__":
    print(_sizes())
