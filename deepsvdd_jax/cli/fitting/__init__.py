"""The parts of the command `fit`."""
