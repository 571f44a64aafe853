"""What the command `fit` is made of."""
