"""Learning from answers of the model itself, round after round, with labels or without."""
