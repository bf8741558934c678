"""Losses per token: what at least two methods use."""
