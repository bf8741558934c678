"""Inference engines in processes of their own: servers that sample, and the weights that reach them."""
