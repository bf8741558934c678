"""Policies that act over several turns, with tools or in a world."""
