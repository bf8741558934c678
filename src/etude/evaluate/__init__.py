"""Measured accuracy with its intervals and its card. `etude.evaluate(...)` calls `train.session.evaluate`."""
