"""Class-vs-all sweeps."""
