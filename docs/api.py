"""Makes the reference of every public module from its docstrings: `python docs/api.py [FOLDER]`.

Needs `pip install -e '.[docs]'`; writes HTML pages into FOLDER, `api/` by default. Names after it,
`python docs/api.py FOLDER deepsvdd_jax.streaming`, ask for the pages of these modules alone.
"""

import importlib
import pkgutil
import sys
from pathlib import Path

import deepsvdd_jax


def modules() -> list[str]:
    """Returns the package and its modules; one that needs a package that is not installed is left
    out, and named on stderr."""
    found = [
        module.name for module in pkgutil.walk_packages(deepsvdd_jax.__path__, "deepsvdd_jax.")
    ]
    return ["deepsvdd_jax", *filter(_loads, found)]


def _loads(module: str) -> bool:
    try:
        importlib.import_module(module)
    except ImportError as error:
        print(f"docs/api.py: {module} is left out: {error}", file=sys.stderr)
        return False
    return True


def main(folder: Path, wanted: list[str]) -> None:
    """Writes the pages, of all modules where none is wanted (touches files)."""
    try:
        import pdoc
    except ImportError:
        sys.exit("docs/api.py: pdoc is not installed: pip install -e '.[docs]'")
    pdoc.render.configure(docformat="google", math=False)
    documented = wanted or modules()
    pdoc.pdoc(*documented, output_directory=folder)
    print(f"{folder / 'index.html'}: {len(documented)} modules")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "api"), sys.argv[2:])
