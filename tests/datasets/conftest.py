import os
from collections.abc import Callable
from pathlib import Path

import pytest

from deepsvdd_jax.datasets import DataError


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets, or a skip."""
    default = Path(__file__).parents[2] / ".." / "shared" / "data"
    root = Path(os.environ.get("DEEPSVDD_DATA", default))
    if not (root / "mnist").is_dir():
        pytest.skip(f"no real data in {root}; set DEEPSVDD_DATA")
    return root


@pytest.fixture
def refuses() -> Callable[..., str]:
    """Asserts that a call raises a one-line DataError holding all the given words."""

    def check(words: list[str], function: Callable, *args: object, **kwargs: object) -> str:
        with pytest.raises(DataError) as caught:
            function(*args, **kwargs)
        message = str(caught.value)
        assert "\n" not in message
        for word in words:
            assert word in message, message
        return message

    return check
