"""Behaviour that must hold: to say what one does not know, to leave out what is forbidden, and to keep it under attack."""
