"""Data that is made or chosen: who wrote every item and of what, what was thrown away and why, and a card that says so."""
