"""Search over the steps of an answer."""
