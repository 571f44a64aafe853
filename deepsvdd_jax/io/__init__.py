"""Files: npz within bounds, models, archives, atomic writing."""
