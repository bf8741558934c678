"""Typed facts on disk, and the page drawn from them. Nothing here knows how a run was made."""
