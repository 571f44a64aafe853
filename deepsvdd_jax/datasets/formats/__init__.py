"""File formats that several data sets come in."""
