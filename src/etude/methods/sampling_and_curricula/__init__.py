"""Which tasks come next, how many attempts at each, and from where they begin."""
