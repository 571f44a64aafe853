"""Convolution and pooling in the form that is fast on the backend at hand.

Nothing else in the project knows which form that is. All functions take images `[batch, height,
width, channels]` and kernels `[k, k, channels, features]`, are differentiable in both, and equal
`lax.conv_general_dilated` up to rounding.

Three facts about XLA's CPU backend shape this module; `docs/performance.md` has the measurements.
Inside a loop only a convolution in canonical form (NHWC, HWIO, NHWC, no dilation) is fast, and the
two gradients that JAX derives are not in that form. A vmapped convolution becomes a grouped one,
which is slow. And few output features leave most of the machine idle, so there the 2x2 window of
the pool that follows is computed as one output with four times the features.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

Padding = tuple[tuple[int, int], tuple[int, int]]

# A layer with at most this many input channels gathers its windows and multiplies once; above it
# the gathered windows cost more memory traffic than they save.
_MOST_GATHERED_CHANNELS = 4
# Below this many features the window of the pool is computed together; it costs (k + 1)^2 / k^2
# times the multiplications, so wide layers are better off without.
_FEWEST_PLAIN_FEATURES = 32
# Fewer features than this, or fewer channels, whose gradient then has as many features, and XLA's
# convolution is ten times slower; a product of whole rows multiplies a third of the width as much.
_FEWEST_FAST_FEATURES = 16
# From as many features on, a kernel's gradient is a product with gathered windows, two to three
# times as fast as the convolution; with half as many the two take as long.
_FEWEST_GATHERED_GRADIENTS = 32
# The windows of as many images are gathered at once as the caches of a core hold.
_GATHERED_BYTES = 1 << 21
# Columns of outputs that are computed together where only maxima are wanted.
_TILE = 4

Vector = Array | None


FORMS = ("automatic", "grouped", "products")
_form = contextvars.ContextVar("form", default="automatic")


@contextlib.contextmanager
def use_form(form: str) -> Iterator[None]:
    """Chooses the form of every convolution that is traced meanwhile: a means to measure.

    What was traced before keeps its form.

    Args:
      form: `automatic`; `grouped`, `lax.conv`, which vmap makes a grouped convolution; or
        `products`, gathered windows times the kernel, which vmap makes a batched product.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; allowed: {', '.join(FORMS)}")
    before = _form.set(form)
    try:
        yield
    finally:
        _form.reset(before)


class PooledMap(NamedTuple):
    """A convolution's output after a 2x2 max-pool, with the sums over all of it.

    Attributes:
      scaled: `(scale, offset) -> [batch, height // 2, width // 2, features]`, the pooled output
        times scale plus offset, each `[features]` or None. The map lies in memory as suited the
        convolution; scaling it there and swapping axes last is what makes this a function.
      total: `[features]`, the sum of the convolution's output before pooling.
      total_of_squares: `[features]`, likewise of its squares.
      count: how many outputs an image adds to each sum (a static number).
    """

    scaled: Callable[[Vector, Vector], Array]
    total: Array
    total_of_squares: Array
    count: int  # type: ignore[assignment]  # hides tuple.count


def same_padding(size: int) -> Padding:
    """Returns the zeros around an image, `((top, bottom), (left, right))`, that keep its size."""
    return (((size - 1) // 2, size // 2),) * 2


def convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves with stride 1.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros `((top, bottom), (left, right))`, at most k - 1 each.

    Returns:
      `[batch, height', width', features]`.
    """
    if _on_cpu():
        return _canonical_convolution(padding, images, kernel)
    if _form.get() == "products":
        return _window_product(padding, images, kernel)
    return _plain_convolution(padding, images, kernel)


def convolve_pool(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """Convolves, takes the maximum of every 2x2 window and the sums that a normalisation needs.

    An odd last row or column enters the sums but no window, as in `flax.linen.max_pool`. Of equal
    values in a window the first, row by row, gets the gradient.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros `((top, bottom), (left, right))`.
    """
    channels, features = kernel.shape[2:]
    height, width = _output_shape(images, kernel, padding)
    if height % 2 or width % 2 or not _on_cpu():
        return _pool_plain(images, kernel, padding)
    if channels <= _MOST_GATHERED_CHANNELS:
        return _pool_gathered(images, kernel, padding)
    sides_even = images.shape[1] % 2 == 0 and images.shape[2] % 2 == 0
    # Blocks of a small image would be fewer than the folded kernel spans.
    large = min(images.shape[1:3]) >= 2 * kernel.shape[0]
    if features < _FEWEST_PLAIN_FEATURES and sides_even and large:
        return _pool_blocked(images, kernel, padding)
    return _pool_plain(images, kernel, padding)


def convolve_maximum(images: Array, kernel: Array, padding: Padding) -> Array:
    """Convolves and takes the maximum of every 2x2 window: `convolve_pool` where no sums and, for
    speed, no gradients are wanted.

    Returns:
      `[batch, height' // 2, width' // 2, features]`.
    """
    height, width = _output_shape(images, kernel, padding)
    tiled = height % 2 == 0 and width % _TILE == 0 and _on_cpu()
    if tiled and kernel.shape[2] <= _MOST_GATHERED_CHANNELS:
        return _maximum_tiled(images, kernel, padding)
    return convolve_pool(images, kernel, padding).scaled(None, None)


def upsample_convolve(images: Array, kernel: Array, padding: Padding) -> Array:
    """Repeats every pixel 2x2 times (nearest neighbour), then convolves with stride 1.

    On a CPU the kernel is folded instead, so that the larger image is never made.

    Args:
      images: `[batch, height, width, channels]`.
      kernel: `[k, k, channels, features]`.
      padding: zeros around the enlarged image, `((top, bottom), (left, right))`.

    Returns:
      `[batch, height', width', features]`, height' = 2 height + padding - k + 1.
    """
    height, width = _output_shape(images, kernel, padding, upsampling=2)
    if not _on_cpu() or height % 2 or width % 2:
        return convolve(upsample(images), kernel, padding)
    channels, features = kernel.shape[2:]
    if min(channels, 4 * features) < _FEWEST_FAST_FEATURES:
        rows = _row_convolution(images, kernel, padding, upsampling=2)
        return rows.reshape(images.shape[0], height, width, features)
    blocks = _block_convolution(images, kernel, padding, stored=1, upsampling=2)
    return _from_blocks(blocks)


def upsample(images: Array) -> Array:
    """Repeats every pixel 2x2 times: `[batch, 2 height, 2 width, channels]`."""
    batch, height, width, channels = images.shape
    repeated = jnp.broadcast_to(images[:, :, None, :, None], (batch, height, 2, width, 2, channels))
    return repeated.reshape(batch, 2 * height, 2 * width, channels)


def channel_sums(images: Array) -> tuple[Array, Array]:
    """Returns the sum and the sum of squares of every channel, two `[channels]`."""
    # Rows of all columns and channels are long enough to be added up as vectors.
    width, channels = images.shape[2:]
    rows = images.reshape(-1, width * channels)
    total, of_squares = (
        _sum_of_columns(values.sum(0), channels) for values in (rows, jnp.square(rows))
    )
    return total, of_squares


def _sum_of_columns(row: Array, channels: int) -> Array:
    """The transpose of `_every_column`, and written so that its gradient is that."""
    if not _on_cpu():
        return row.reshape(-1, channels).sum(0)
    columns = np.tile(np.eye(channels, dtype=np.float32), (row.shape[0] // channels, 1))
    return jnp.matmul(row, columns, precision="highest")


def scale_channels(images: Array, scale: Vector, offset: Vector) -> Array:
    """Returns `images * scale + offset`, each `[channels]` or None."""
    width, channels = images.shape[2:]
    # As above: rows are worked on as vectors, a few channels are not.
    rows = images.reshape(-1, width * channels)
    wide_scale, wide_offset = (
        None if vector is None else _every_column(vector, width)[None] for vector in (scale, offset)
    )
    return _scaled(rows, wide_scale, wide_offset).reshape(images.shape)


def _scaled(values: Array, scale: Vector, offset: Vector) -> Array:
    values = values if scale is None else values * scale
    return values if offset is None else values + offset


def _every_column(vector: Array, width: int) -> Array:
    """Repeats `[channels]` for every column of a row: `[width channels]`.

    A product with a matrix of 0 and 1 keeps XLA from repeating inside the loops over the rows,
    where every element would divide its index.
    """
    if not _on_cpu():
        return jnp.tile(vector, width)
    columns = np.tile(np.eye(vector.shape[0], dtype=np.float32), width)
    return jnp.matmul(vector, columns, precision="highest")


def max_pool(images: Array) -> Array:
    """Takes the maximum of every 2x2 window, leaving out an odd last row or column."""
    batch, height, width, channels = images.shape
    even = images[:, : height // 2 * 2, : width // 2 * 2]
    windows = even.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return _first_maximum(windows, (2, 4))


# --- the canonical convolution and its gradients ------------------------------------------------


def _on_cpu() -> bool:
    return _form.get() == "automatic" and jax.default_backend() == "cpu"


def _window_product(padding: Padding, images: Array, kernel: Array) -> Array:
    """Multiplies the windows `[batch positions, taps channels]` with the kernel."""
    size, across, channels, features = kernel.shape
    height, width = _output_shape(images, kernel, padding)
    windows = _side_by_side(_padded(images, padding), (size, across), (height, width))
    output = windows.reshape(-1, size * across * channels) @ kernel.reshape(-1, features)
    return output.reshape(images.shape[0], height, width, features)


def _padded(images: Array, padding: Padding) -> Array:
    """Unlike jnp.pad this takes negative padding, as of a cropped or a folded kernel."""
    pads = ((0, 0), *padding, (0, 0))
    return lax.pad(images, np.zeros((), images.dtype), [(*pad, 0) for pad in pads])


def _side_by_side(images: Array, neighbours: tuple[int, int], windows: tuple[int, int]) -> Array:
    """Puts the `neighbours` pixels that each window begins with side by side, `[batch, *windows,
    neighbours channels]`."""
    (down, across), (height, width) = neighbours, windows
    return jnp.concatenate(
        [
            images[:, row : row + height, column : column + width]
            for row in range(down)
            for column in range(across)
        ],
        3,
    )


def _plain_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    return lax.conv_general_dilated(
        images, kernel, (1, 1), padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _looped_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    if images.shape[1] < kernel.shape[0] or images.shape[2] < kernel.shape[1]:
        return _dense_convolution(padding, images, kernel)
    # Under vmap a loop over canonical convolutions, not the grouped one that is slow on a CPU.
    looped = jax.custom_batching.sequential_vmap(functools.partial(_plain_convolution, padding))
    return looped(images, kernel)


def _dense_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    """Multiplies flattened images with one matrix `[pixels channels, pixels' features]`.

    XLA has no fast kernel for an image that is smaller than the kernel, padding aside; nearly every
    pixel meets every output there, so the matrix wastes little.
    """
    batch, _, _, channels = images.shape
    rows, columns = _output_shape(images, kernel, padding)
    matrix = jnp.einsum(
        "iot,jpu,tucf->ijcopf",
        _pixel_taps(images.shape[1], rows, kernel.shape[0], padding[0][0]),
        _pixel_taps(images.shape[2], columns, kernel.shape[1], padding[1][0]),
        kernel,
    )
    features = kernel.shape[3]
    flat = images.reshape(batch, -1) @ matrix.reshape(-1, rows * columns * features)
    return flat.reshape(batch, rows, columns, features)


def _pixel_taps(size: int, outputs: int, taps: int, pad: int, upsampling: int = 1) -> np.ndarray:
    """Returns 0/1 `[pixel, output, tap]`: which pixel each tap of each output reads, every pixel
    standing `upsampling` times in the image that is convolved."""
    pixel, output, tap = np.ogrid[:size, :outputs, :taps]
    return ((output + tap - pad) // upsampling == pixel).astype(np.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _canonical_convolution(padding: Padding, images: Array, kernel: Array) -> Array:
    return _looped_convolution(padding, images, kernel)


def _canonical_forward(
    padding: Padding, images: Array, kernel: Array
) -> tuple[Array, tuple[Array, Array]]:
    return _looped_convolution(padding, images, kernel), (images, kernel)


def _canonical_backward(
    padding: Padding, residuals: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    images, kernel = residuals
    flipped = kernel[::-1, ::-1].swapaxes(2, 3)
    # A folded kernel need not be square.
    down, across = kernel.shape[0] - 1, kernel.shape[1] - 1
    (top, bottom), (left, right) = padding
    full = ((down - top, down - bottom), (across - left, across - right))
    d_images = _looped_convolution(full, gradient, flipped)
    if kernel.shape[3] >= _FEWEST_GATHERED_GRADIENTS:
        return d_images, _gathered_kernel_gradient(padding, images, kernel.shape, gradient)
    # Channels act as the batch and the batch as the channels: the sum runs over images and pixels.
    d_kernel = _looped_convolution(
        padding, images.transpose(3, 1, 2, 0), gradient.transpose(1, 2, 0, 3)
    )
    return d_images, d_kernel.transpose(1, 2, 0, 3)


def _gathered_kernel_gradient(
    padding: Padding, images: Array, shape: tuple[int, ...], gradient: Array
) -> Array:
    """Multiplies gradients with the windows that they belong to, a few images at a time."""
    down, across, channels, features = shape
    batch, height, width, _ = gradient.shape
    window_bytes = 4 * height * width * down * across * channels
    most = max(1, _GATHERED_BYTES // window_bytes)
    size = max(count for count in range(1, batch + 1) if batch % count == 0 and count <= most)
    parts = [jnp.reshape(part, (-1, size, *part.shape[1:])) for part in (images, gradient)]

    def add_part(index: Array, total: Array) -> Array:
        some_images, some_gradients = (
            lax.dynamic_index_in_dim(part, index, keepdims=False) for part in parts
        )
        padded = _padded(some_images, padding)
        windows = _side_by_side(padded, (down, across), (height, width))
        # The sum runs over the first axis of both; the smaller side comes first.
        both = some_gradients.reshape(-1, features), windows.reshape(-1, windows.shape[3])
        return total + lax.dot_general(*both, (((0,), (0,)), ((), ())))

    nothing = jnp.zeros((features, down * across * channels), images.dtype)
    total = lax.fori_loop(0, batch // size, add_part, nothing)
    return total.T.reshape(shape)


_canonical_convolution.defvjp(_canonical_forward, _canonical_backward)


# --- convolution of blocks of pixels ------------------------------------------------------------


def _block_taps(size: int, pad: int, stored: int, upsampling: int) -> tuple[np.ndarray, int]:
    """Says which stored pixel each tap of each output pixel of a block reads, in one dimension.

    Images are stored as blocks of `stored` pixels and repeated `upsampling` times; the output
    comes in blocks of `stored * upsampling` pixels, one for each stored block.

    Returns:
      0/1 array `[block offset, pixel in stored block, pixel in output block, tap]`, and how many
      blocks of padding come before the first.
    """
    produced = stored * upsampling
    reads = [
        (pixel, tap, *divmod((pixel + tap - pad) // upsampling, stored))
        for pixel in range(produced)
        for tap in range(size)
    ]
    first = min(block for _, _, block, _ in reads)
    last = max(block for _, _, block, _ in reads)
    taps = np.zeros((last - first + 1, stored, produced, size), np.float32)
    for pixel, tap, block, inside in reads:
        taps[block - first, inside, pixel, tap] = 1.0
    return taps, -first


def _block_convolution(
    blocks: Array, kernel: Array, padding: Padding, *, stored: int, upsampling: int
) -> Array:
    """Convolves `[batch, h, w, stored^2 channels]` to `[batch, h', w', 4 features]`.

    Blocks hold their pixels row by row, channels or features innermost. An output block has 2x2
    pixels: `stored * upsampling` is 2.
    """
    size, _, channels, features = kernel.shape
    taps_down, before_down = _block_taps(size, padding[0][0], stored, upsampling)
    taps_across, before_across = _block_taps(size, padding[1][0], stored, upsampling)
    folded = jnp.einsum("ipat,jqbu,tucf->ijpqcabf", taps_down, taps_across, kernel)
    offsets = (taps_down.shape[0], taps_across.shape[0])
    folded = folded.reshape(*offsets, stored**2 * channels, 4 * features)

    def block_padding(axis: int, before: int) -> tuple[int, int]:
        pixels = 2 * blocks.shape[axis + 1] + sum(padding[axis]) - size + 1
        return before, pixels // 2 + offsets[axis] - 1 - before - blocks.shape[axis + 1]

    pads = (block_padding(0, before_down), block_padding(1, before_across))
    return _canonical_convolution(pads, blocks, folded)


def _to_blocks(images: Array) -> Array:
    """Gathers every 2x2 pixels: `[batch, height / 2, width / 2, 4 channels]`."""
    batch, height, width, channels = images.shape
    windows = images.reshape(batch, height // 2, 2, width // 2, 2, channels)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, height // 2, width // 2, -1)


def _from_blocks(blocks: Array) -> Array:
    """Inverse of `_to_blocks`."""
    batch, height, width, depth = blocks.shape
    windows = blocks.reshape(batch, height, width, 2, 2, depth // 4)
    return windows.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, -1)


# --- convolution of whole rows ------------------------------------------------------------------


def _row_convolution(images: Array, kernel: Array, padding: Padding, upsampling: int = 1) -> Array:
    """Multiplies rows with a band matrix `[taps, width channels, upsampling width' features]`.

    Rows come and go as they lie in memory, no axis is swapped, and the product has as many columns
    as the machine likes, however few features there are.

    Returns:
      `[batch, height' / upsampling, upsampling width' features]`.
    """
    batch, height, width, channels = images.shape
    size, _, _, features = kernel.shape
    rows, columns = _output_shape(images, kernel, padding, upsampling)
    down, before = _block_taps(size, padding[0][0], 1, upsampling)
    across = _pixel_taps(width, columns, size, padding[1][0], upsampling)
    band = jnp.einsum("hat,xyu,tucf->hxcayf", down[:, 0], across, kernel)
    band = band.reshape(-1, width * channels, upsampling * columns * features)
    return _row_product(images.reshape(batch, height, -1), band, before, rows // upsampling)


def _row_product(rows: Array, band: Array, before: int, count: int) -> Array:
    """Returns `sum_i rows[:, o + i - before] @ band[i]` for all o < count, `[batch, count, right]`.

    The narrower side is copied: either the rows that an output needs are put side by side, or the
    products that an output adds up. They are each other's gradient.
    """
    taps, left, right = band.shape
    batch, height, _ = rows.shape
    if left <= right:
        windows = _row_windows(taps, before, count, rows)
        product = windows.reshape(-1, taps * left) @ band.reshape(-1, right)
        return product.reshape(batch, count, right)
    reversed_band = band[::-1].transpose(1, 0, 2).reshape(left, -1)
    products = (rows.reshape(-1, left) @ reversed_band).reshape(batch, height, -1)
    return _add_windows(taps, taps - 1 - before, count, products)


def _row_windows(taps: int, before: int, count: int, rows: Array) -> Array:
    """Puts `taps` neighbouring rows side by side: `[batch, count, taps length]`, the first window
    starting `before` rows above the image, with zeros outside."""
    after = count + taps - 1 - before - rows.shape[1]
    padded = lax.pad(rows, np.zeros((), rows.dtype), ((0, 0, 0), (before, after, 0), (0, 0, 0)))
    return jnp.concatenate([padded[:, tap : tap + count] for tap in range(taps)], 2)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _add_windows(taps: int, before: int, count: int, windows: Array) -> Array:
    """The transpose of `_row_windows`, from `[batch, height, taps length]`; what XLA makes of the
    gradient that JAX derives takes four times as long as putting rows side by side again."""
    batch, height, wide = windows.shape
    rows = jax.ShapeDtypeStruct((batch, count, wide // taps), windows.dtype)
    put_side_by_side = functools.partial(_row_windows, taps, before, height)
    (added,) = jax.linear_transpose(put_side_by_side, rows)(windows)
    return added


def _add_windows_forward(taps: int, before: int, count: int, windows: Array) -> tuple[Array, int]:
    return _add_windows(taps, before, count, windows), windows.shape[1]


def _add_windows_backward(
    taps: int, before: int, count: int, height: int, gradient: Array
) -> tuple[Array]:
    return (_row_windows(taps, before, height, gradient),)


_add_windows.defvjp(_add_windows_forward, _add_windows_backward)


# --- forms of convolution and pool --------------------------------------------------------------


def _pool_plain(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    output = convolve(images, kernel, padding)
    scaled = functools.partial(scale_channels, max_pool(output))
    return PooledMap(scaled, *channel_sums(output), output.shape[1] * output.shape[2])


def _pool_blocked(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    output = _block_convolution(_to_blocks(images), kernel, padding, stored=2, upsampling=1)
    batch, height, width, depth = output.shape
    flat = output.reshape(-1, depth)
    windows = output.reshape(batch, height, width, 4, depth // 4)
    pooled = _first_maximum(windows, (3,))
    return PooledMap(
        functools.partial(scale_channels, pooled),
        flat.sum(0).reshape(4, -1).sum(0),
        jnp.square(flat).sum(0).reshape(4, -1).sum(0),
        4 * height * width,
    )


def _pool_gathered(images: Array, kernel: Array, padding: Padding) -> PooledMap:
    """One product of the folded kernel `[4 features, taps]` with all windows `[taps, positions]`.

    Positions are innermost, so that sums, maxima and their gradients run over contiguous memory.
    """
    size, _, channels, features = kernel.shape
    height, width = _output_shape(images, kernel, padding)
    taps = np.stack([np.eye(size + 1, size, -shift, dtype=np.float32) for shift in (0, 1)], 1)
    folded = jnp.einsum("iat,jbu,tucf->abfcij", taps, taps, kernel).reshape(4 * features, -1)
    output = (folded @ _gather_windows(images, size, padding)).reshape(4, features, -1)
    pooled = _first_maximum(output, (0,))

    def scaled(scale: Vector, offset: Vector) -> Array:
        columns = (None if vector is None else vector[:, None] for vector in (scale, offset))
        # A product with the identity transposes exactly and, unlike a transpose, is not fused into
        # the loops around it, which would make them jump through memory.
        swapped = lax.dot_general(
            _scaled(pooled, *columns),
            jnp.eye(features, dtype=pooled.dtype),
            (((0,), (0,)), ((), ())),
            precision="highest",
        )
        return swapped.reshape(-1, height // 2, width // 2, features)

    return PooledMap(scaled, output.sum(2).sum(0), jnp.square(output).sum(2).sum(0), height * width)


def _gather_windows(images: Array, size: int, padding: Padding) -> Array:
    """Returns the (size + 1)^2 pixels under each 2x2 output block, `[channels taps, positions]`."""
    batch, height, width, channels = images.shape
    rows = height + sum(padding[0]) - size + 1
    columns = width + sum(padding[1]) - size + 1
    (top, bottom), (left, right) = padding
    extra = (size - 1) % 2  # the planes below need an even number of rows and columns
    padded = jnp.pad(images, ((0, 0), (top, bottom + extra), (left, right + extra), (0, 0)))
    planes = padded.reshape(
        batch, padded.shape[1] // 2, 2, padded.shape[2] // 2, 2, channels
    ).transpose(5, 2, 4, 0, 1, 3)
    windows = [
        planes[:, i % 2, j % 2, :, i // 2 : i // 2 + rows // 2, j // 2 : j // 2 + columns // 2]
        for i in range(size + 1)
        for j in range(size + 1)
    ]
    return jnp.stack(windows, 1).reshape(channels * (size + 1) ** 2, -1)


def _maximum_tiled(images: Array, kernel: Array, padding: Padding) -> Array:
    """One product of the windows under two rows and four columns of outputs, `[tiles, taps]`, with
    the kernel folded to `[taps, 8 features]`, and the maximum of four contiguous parts of a row.

    What comes out lies as the next layer wants it; a third more multiplications than in
    `_pool_gathered` cost less than the swap of axes there. With gradients it is the other way.
    """
    size, _, channels, features = kernel.shape
    height, width = _output_shape(images, kernel, padding)
    tiles = (height // 2, width // _TILE)
    down, _ = _block_taps(size, 0, 2, 1)
    across, _ = _block_taps(size, 0, _TILE, 1)
    # Left columns of the pool's windows first, so that each corner of them is in one place.
    across = across[:, :, [*range(0, _TILE, 2), *range(1, _TILE, 2)]]
    folded = jnp.einsum("ipat,jqbu,tucf->ijpqcabf", down, across, kernel)
    windows = _tile_windows(images, padding, tiles, (len(down), len(across)))
    output = windows.reshape(-1, windows.shape[3]) @ folded.reshape(-1, 2 * _TILE * features)
    corners = output.reshape(-1, 4, _TILE // 2 * features)
    return _first_maximum(corners, (1,)).reshape(-1, height // 2, width // 2, features)


def _tile_windows(
    images: Array, padding: Padding, tiles: tuple[int, int], blocks: tuple[int, int]
) -> Array:
    """Puts the blocks of 2 x `_TILE` pixels that each tile of outputs reads side by side,
    `[batch, *tiles, pixels channels]`."""
    batch, height, width, channels = images.shape
    rows, columns = (tile + block - 1 for tile, block in zip(tiles, blocks, strict=True))
    (top, _), (left, _) = padding
    below, right = 2 * rows - height - top, _TILE * columns - width - left
    padded = _padded(images, ((top, below), (left, right)))
    in_blocks = padded.reshape(batch, rows, 2, columns, _TILE * channels).transpose(0, 1, 3, 2, 4)
    return _side_by_side(in_blocks.reshape(batch, rows, columns, -1), blocks, tiles)


def _output_shape(
    images: Array, kernel: Array, padding: Padding, upsampling: int = 1
) -> tuple[int, int]:
    height, width = (
        side * upsampling + sum(pads) - taps + 1
        for side, taps, pads in zip(images.shape[1:3], kernel.shape[:2], padding, strict=True)
    )
    return height, width


# --- the maximum of a window --------------------------------------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _first_maximum(windows: Array, axes: tuple[int, ...]) -> Array:
    """Maximum over `axes`; the gradient goes to the first of equal values only.

    JAX's own gradient of a maximum splits it between equal values and takes several passes.
    """
    return _first_maximum_forward(windows, axes)[0]


def _window_slices(windows: Array, axes: tuple[int, ...]) -> list[Array]:
    slices = [windows]
    for axis in sorted(axes, reverse=True):
        slices = [
            lax.index_in_dim(part, index, axis, keepdims=False)
            for index in range(windows.shape[axis])
            for part in slices
        ]
    return slices


def _first_maximum_forward(windows: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    slices = _window_slices(windows, axes)
    maximum = functools.reduce(jnp.maximum, slices)
    winner = jnp.full(maximum.shape, len(slices) - 1, maximum.dtype)
    for index in reversed(range(len(slices) - 1)):
        winner = jnp.where(slices[index] == maximum, jnp.asarray(index, winner.dtype), winner)
    return maximum, winner


def _first_maximum_backward(axes: tuple[int, ...], winner: Array, gradient: Array) -> tuple[Array]:
    sizes = [2] * len(axes) if len(axes) > 1 else [4]
    shape = [1] * (winner.ndim + len(axes))
    for axis, size in zip(axes, sizes, strict=True):
        shape[axis] = size
    place = np.arange(4, dtype=winner.dtype).reshape(shape)
    wins = jnp.expand_dims(winner, axes) == place
    return (jnp.where(wins, jnp.expand_dims(gradient, axes), jnp.zeros((), gradient.dtype)),)


_first_maximum.defvjp(_first_maximum_forward, _first_maximum_backward)
