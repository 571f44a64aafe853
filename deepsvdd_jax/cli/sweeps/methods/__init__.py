"""The methods of a sweep, a file each; a new one is a file here and a line below."""

from collections.abc import Iterable

from absl import flags

from deepsvdd_jax.cli.sweeps.methods import (
    dcae,
    deep_svdd,
    isolation_forest,
    kde,
    knn,
    ocsvm,
    soft_boundary,
)
from deepsvdd_jax.cli.sweeps.methods.base import DeepMethod, Method, ShallowMethod
from deepsvdd_jax.configs import ConfigError

# The autoencoder by itself, which the other deep methods may start from.
AUTOENCODER = dcae.METHOD.name

# The method that `fit` trains.
DEEP_SVDD = deep_svdd.METHOD

# The order in which messages name them.
METHODS: dict[str, Method] = {}


def register(*methods: Method) -> None:
    """Makes methods known to sweeps, tables and reports."""
    METHODS.update({method.name: method for method in methods})


register(deep_svdd.METHOD)
register(dcae.METHOD)
register(ocsvm.METHOD)
register(kde.METHOD)
register(isolation_forest.METHOD)
register(knn.METHOD)
register(soft_boundary.METHOD)


def names() -> tuple[str, ...]:
    """Returns the names of all methods."""
    return tuple(METHODS)


def deep() -> dict[str, DeepMethod]:
    """Returns the methods that train networks, by name."""
    return {name: one for name, one in METHODS.items() if isinstance(one, DeepMethod)}


def shallow() -> dict[str, ShallowMethod]:
    """Returns the other methods, by name."""
    return {name: one for name, one in METHODS.items() if isinstance(one, ShallowMethod)}


def chosen(names: Iterable[str]) -> list[Method]:
    """Returns the methods of these names, in their order."""
    return [METHODS[name] for name in names]


def in_tables() -> list[Method]:
    """Returns all methods in the order of tables for readers: the paper's own last."""
    return [*shallow().values(), *sorted(deep().values(), key=lambda method: method.place)]


def parse(text: str) -> tuple[str, ...]:
    """Parses names, as `deep_svdd,ocsvm`.

    Raises:
      ConfigError: an unknown name, or none.
    """
    found = tuple(dict.fromkeys(part for part in text.split(",") if part))
    if not found or not set(found) <= set(METHODS):
        raise ConfigError(f"methods is {text!r}; allowed: any of {','.join(METHODS)}")
    return found


def check_flags(values: flags.FlagValues, chosen: tuple[str, ...]) -> None:
    """Refuses flags that none of the chosen methods reads.

    Raises:
      ConfigError: names the flag and the methods that it is for.
    """
    readers = {name: tuple(deep()) for name in ("save_models", "evaluate_every")}
    readers["pca"] = tuple(shallow())
    readers |= {flag: (method.name,) for method in shallow().values() for flag in method.flags}
    for name, methods in readers.items():
        if values[name].value != values[name].default and not set(methods) & set(chosen):
            raise ConfigError(
                f"--{name} has no effect here: it is for {', '.join(methods)}; add one to --methods"
            )
    for name in ("svm_nu", "svm_gamma"):
        if values[name].value != values[name].default and values.selection == "paper":
            raise ConfigError(f"--{name} has no effect here: selection=paper chooses it")
