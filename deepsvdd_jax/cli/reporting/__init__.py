"""Tables and pages of finished sweeps and scores."""
