"""An anomaly map laid over its image, as pixels; numpy alone."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

# Colours up to the highest value of the scale: none, dark violet, red, orange, light yellow.
_STOPS = np.array(
    [(20, 11, 52), (132, 32, 107), (229, 92, 48), (246, 215, 70), (252, 255, 190)], np.float64
)
_MOST_COLOUR = 0.75
_OUTLINE = (0, 255, 255)


def eight_bits(image: npt.NDArray[np.generic]) -> Pixels:
    """Returns an image as uint8; one of more bits from its own lowest to its highest value."""
    if image.dtype == np.uint8:
        return np.asarray(image, np.uint8)
    values = image.astype(np.float64)
    low, high = float(values.min()), float(values.max())
    return np.round(255 * ((values - low) / max(high - low, 1e-300))).astype(np.uint8)


def overlay(
    image: npt.NDArray[np.generic],
    values: npt.NDArray[np.floating],
    scale: tuple[float, float],
    threshold: float | None = None,
) -> Pixels:
    """Returns a gray image with its map in colour over it, `[height, width, 3]`.

    Args:
      image: `[height, width, 1 or 3]`.
      values: `[height, width]`, the map.
      scale: the values with no colour and with the strongest; equal ones colour nothing.
      threshold: regions above it get an outline, one pixel wide, inside.
    """
    gray = eight_bits(image).astype(np.float64).mean(axis=2, keepdims=True)
    low, high = scale
    share = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)
    stops = np.linspace(0, 1, len(_STOPS))
    colour = np.stack([np.interp(share, stops, channel) for channel in _STOPS.T], axis=2)
    weight = _MOST_COLOUR * share[:, :, None]
    mixed = np.round((1 - weight) * gray + weight * colour).astype(np.uint8)
    if threshold is not None:
        mixed[outline(values > threshold)] = _OUTLINE
    return mixed


def outline(marked: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Returns the marked pixels of which one of the four neighbours is not marked or does not
    exist."""
    padded = np.pad(marked, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return marked & ~inner


def reduce_map(values: npt.NDArray[np.floating], sides: tuple[int, int]) -> npt.NDArray[np.float32]:
    """Returns a map at a smaller size: each pixel is the highest of the values that it replaces.

    Args:
      values: `[height, width]`; read row by row, so that it may be a memory map.
      sides: (height, width), none above the map's.
    """
    rows, columns = (
        np.arange(count) * side // count for count, side in zip(sides, values.shape, strict=True)
    )
    ends = np.append(rows[1:], values.shape[0])
    return np.stack(
        [
            np.maximum.reduceat(np.asarray(values[start:end]).max(axis=0), columns)
            for start, end in zip(rows, ends, strict=True)
        ]
    ).astype(np.float32)
