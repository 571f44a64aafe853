"""Errors and warnings of training and scoring."""


class TrainingError(RuntimeError):
    """Training gave no usable network; one line that names the seeds and says what may help."""


class CollapseWarning(UserWarning):
    """A network maps nearly every input to one point, so that its scores tell little."""


class ConstantFeatureWarning(UserWarning):
    """Columns of a training table are constant; one line names them."""
