"""Which tasks come next: what at least two methods use."""
