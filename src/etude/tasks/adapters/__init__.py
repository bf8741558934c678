"""Environments of other libraries as tasks, each behind an extra. `docs/environments.md` says what of them can be played."""
