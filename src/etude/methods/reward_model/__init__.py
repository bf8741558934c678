"""Reward models: learning from pairs what a good answer is worth."""
