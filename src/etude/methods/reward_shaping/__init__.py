"""Several rewards at once, and rewards for form or length."""
