"""Stop signs against adversarial ones."""
