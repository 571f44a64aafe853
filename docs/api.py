"""Makes the reference of every public module from its docstrings: `python docs/api.py [FOLDER]`.

Needs `pip install -e '.[docs]'`; writes HTML pages into FOLDER, `api/` by default.
"""

import pkgutil
import sys
from pathlib import Path

import deepsvdd_jax


def modules() -> list[str]:
    """Returns the package and its modules."""
    found = pkgutil.walk_packages(deepsvdd_jax.__path__, "deepsvdd_jax.")
    return ["deepsvdd_jax", *(module.name for module in found)]


def main(folder: Path) -> None:
    """Writes the pages (touches files)."""
    try:
        import pdoc
    except ImportError:
        sys.exit("docs/api.py: pdoc is not installed: pip install -e '.[docs]'")
    pdoc.render.configure(docformat="google", math=False)
    pdoc.pdoc(*modules(), output_directory=folder)
    print(f"{folder / 'index.html'}: {len(modules())} modules")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "api"))
