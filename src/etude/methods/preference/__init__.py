"""Learning from pairs of which one is preferred."""
