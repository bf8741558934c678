"""Learning from attempts of an older or another policy."""
