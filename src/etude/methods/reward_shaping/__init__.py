"""Several rewards at once, and rewards for length."""
