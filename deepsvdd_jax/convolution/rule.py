"""The rule that chooses a form of convolution: platform, channels, features, width.

On a CPU the forms of `cpu.py` are taken, whose own limits stand there. Elsewhere `form_of` chooses
among `ACCELERATOR_FORMS`. What it rests on was measured with a prototype on one H100 (jax 0.11,
batches of 200, float32 with TF32 products), ten runs of `cifar10_lenet` in a program, milliseconds
a training step:

=================================================================  ====
one-class: `grouped`, vmap of `lax.conv` with JAX's own gradients  11.8
`windows` for all layers                                            9.9
first layer `rows`, the others `grouped`                            7.3
`rows` for all layers                                               7.5
first layer `rows`, the others `canonical`                          6.5
the same, the kernel's gradient with gathered windows               8.7
the same, the kernel's gradient with a product a tap                9.2
autoencoder: `grouped`                                             23.2
`rows` for all layers                                              10.3
=================================================================  ====

A run among 100 of `mnist_lenet` with `rows` for all layers took a quarter of the time of `grouped`,
its autoencoder a sixth. Rows spend 7 to 13 times the multiplications of `mnist_lenet` and 2 to 8
times those of `cifar10_lenet` and win all the same, because memory decides. So: rows, but for a
layer with many channels and features that enlarges nothing, whose forward pass and gradient to the
images cuDNN does well. `tiles` have not been measured yet: they are never chosen, only taken where
they are asked for. `python -m benchmarks.suite --parts=forms` measures all of them.
"""

import contextlib
import contextvars
from collections.abc import Iterator

import jax

ACCELERATOR_FORMS = ("grouped", "windows", "rows", "canonical", "tiles")
FORMS = ("automatic", *ACCELERATOR_FORMS)

# A layer with as many channels and as many features is wide.
_FEWEST_WIDE = 32
# Most numbers in a run's band matrix: a larger one takes more memory than the images.
LARGEST_BAND = 1 << 24

_form = contextvars.ContextVar("form", default="automatic")
_platform: contextvars.ContextVar[str | None] = contextvars.ContextVar("platform", default=None)


@contextlib.contextmanager
def use_form(form: str) -> Iterator[None]:
    """Sets the form of every convolution that is traced within it, to measure that form.

    A convolution that was traced before keeps its form; a layer that the form does not fit (tiles
    at an odd width) takes rows.

    Args:
      form: `automatic`, or one of `ACCELERATOR_FORMS`, on a CPU too: `grouped`, `lax.conv`, which
        vmap makes a grouped convolution; `windows`, gathered windows times the kernel; `rows`,
        whole rows times a band matrix, pairs of them before a pool; `canonical`, `lax.conv` with
        gradients written as a convolution and as a product of rows; `tiles`, rows of a few columns.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; allowed: {', '.join(FORMS)}")
    before = _form.set(form)
    try:
        yield
    finally:
        _form.reset(before)


@contextlib.contextmanager
def lowered_for(platform: str) -> Iterator[None]:
    """Sets the platform for which convolutions that are traced within it will be lowered.

    Without it that is jax's default backend. With it a program can be lowered for a platform that
    is not there: `jax.jit(f).trace(x).lower(lowering_platforms=("cuda",))`.

    Args:
      platform: `cpu`, or any other name for an accelerator.
    """
    before = _platform.set(platform)
    try:
        yield
    finally:
        _platform.reset(before)


def platform(default: str | None = None) -> str:
    """Returns the platform that is traced for: that of `lowered_for`, else the given one, else
    jax's default backend."""
    return _platform.get() or default or jax.default_backend()


def on_cpu() -> bool:
    """Whether the forms for a CPU are wanted."""
    return _form.get() == "automatic" and platform() == "cpu"


def form_of(taps: int, channels: int, features: int, width: int, upsampling: int = 1) -> str:
    """Returns the form of a layer on an accelerator.

    Args:
      taps: side of the kernel.
      channels: of the images.
      features: that come out.
      width: of what comes out.
      upsampling: how often every pixel of the images is repeated first.
    """
    asked = _form.get()
    if asked != "automatic":
        return asked
    wide = min(channels, features) >= _FEWEST_WIDE and upsampling == 1
    return "canonical" if wide or not has_rows(taps, channels, features, width) else "rows"


def has_rows(taps: int, channels: int, features: int, width: int) -> bool:
    """Whether the band matrix of a layer's rows is small enough to be made, in any form of it: at
    most two rows and an overhang come in and two go out."""
    return (taps + 1) * width * channels * 2 * width * features <= LARGEST_BAND
