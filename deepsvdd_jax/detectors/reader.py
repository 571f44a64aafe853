"""The script that goes with an exported scorer: it reads images as `score` does, and scores them.

It carries `datasets.formats.pixels` as it is and needs jax or onnxruntime, numpy and Pillow, not
this package.
"""

import inspect

from deepsvdd_jax.datasets.formats import pixels
from deepsvdd_jax.io.models import Model

MARK = "# Written by deepsvdd_jax with an exported scorer.\n"

_SCRIPT = '''
# The model's: None takes images and channels as they are.
SHAPE = {shape}  # height, width, channels
SIZE = {size}  # height, width to resize to
CHANNELS = {channels}
PIXEL_RANGE = {pixel_range}  # values that become 0 and 1, of more than 8 bits
THRESHOLD = {threshold!r}
SCORER = {scorer!r}


def read_image(path: str) -> np.ndarray:
    """Returns what the scorer takes of an image file, float32 `SHAPE` in [0, 1]."""
    with Image.open(path) as opened:
        image = pixels_of(opened, CHANNELS)
    if SIZE is not None:
        image = resize_image(image, SIZE)
    if image.shape != SHAPE:
        raise PixelError(f"an image of shape {{image.shape}}; the model takes {{SHAPE}}")
    values = unit_pixels(image, PIXEL_RANGE)
    return values if values.dtype == np.float32 else values.astype(np.float32) / np.float32(255)


{runtime}

def main(paths: list[str]) -> None:
    """Prints score, whether it is above the threshold, and path of each image."""
    scorer = load_scorer()
    for path in paths:
        try:
            image = read_image(path)
        except (OSError, ValueError) as error:
            sys.exit(f"{{path}}: {{error}}")
        score = float(scores_of(scorer, image[None])[0])
        print(f"{{score:.6g}}\\t{{'anomalous' if score > THRESHOLD else 'normal'}}\\t{{path}}")


if __name__ == "__main__":
    main(sys.argv[1:])
'''

_STABLEHLO = '''def load_scorer() -> jax.export.Exported:
    """Returns the scorer that lies beside this script."""
    return jax.export.deserialize(bytearray(Path(__file__).with_name(SCORER).read_bytes()))


def scores_of(scorer: jax.export.Exported, images: np.ndarray) -> np.ndarray:
    """Returns the scores of images."""
    return np.asarray(scorer.call(images))
'''

_ONNX = '''def load_scorer() -> onnxruntime.InferenceSession:
    """Returns the scorer that lies beside this script."""
    return onnxruntime.InferenceSession(str(Path(__file__).with_name(SCORER)))


def scores_of(scorer: onnxruntime.InferenceSession, images: np.ndarray) -> np.ndarray:
    """Returns the scores of images."""
    return scorer.run(["score"], {"samples": images})[0]
'''

# The imports of each format's script, and its lines that score.
_RUNTIMES = {
    "stablehlo": ("import jax\nimport jax.export\n", _STABLEHLO),
    "onnx": ("import onnxruntime\n", _ONNX),
}

_IMPORTS = "import numpy as np\nfrom PIL import Image, ImageOps\n"


def reader_script(model: Model, scorer: str, runtime: str = "stablehlo") -> str:
    """Returns the text of a script that reads image files and scores them with an export.

    Its `read_image(path)` gives what the exported scorer takes, to the last bit what `score` gives
    the model.

    Args:
      model: of images, as `fit` saves it: its summary says how they are made alike.
      scorer: name of the exported scorer's file, which lies beside the script.
      runtime: `stablehlo` or `onnx`, the format of that file.
    """
    source = inspect.getsource(pixels)
    before, after = source.split(_IMPORTS)
    packages, functions = _RUNTIMES[runtime]
    first, second = _IMPORTS.splitlines(keepends=True)
    # The order of imports that a formatter keeps.
    ordered = first + packages if runtime == "onnx" else packages + first
    imports = f"import sys\nfrom pathlib import Path\n\n{ordered}{second}"
    made_alike = model.summary.get("data", {})
    tail = _SCRIPT.format(
        shape=tuple(model.image_shape),
        size=tuple(model.image_shape[:2]) if made_alike.get("image_size") else None,
        channels=made_alike.get("channels"),
        pixel_range=made_alike.get("pixel_range"),
        threshold=float(model.threshold),
        scorer=scorer,
        runtime=functions,
    )
    return f"{MARK}{before}{imports}{after}\n{tail}"
