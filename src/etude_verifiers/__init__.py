"""etude's tasks for verifiers and prime-rl, by the id `etude-verifiers`: see `etude.export.verifiers`."""

from etude.export.verifiers import EtudeEnv, EtudeHarness, EtudeTaskset

__all__ = ["EtudeEnv", "EtudeHarness", "EtudeTaskset"]
