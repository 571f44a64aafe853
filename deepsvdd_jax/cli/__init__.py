"""The commands, and the modules that they share."""

import os

# Warnings of XLA's autotuner would break the progress bar. Read when jax is imported, which sets a
# lower level where there is none.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
