"""What a proposer earns for a task of its own."""


def learnability(rate: float) -> float:
    """r = 1 - s for a task that a share s of the solver's attempts solve; 0 where none does."""
    return 1.0 - rate if rate > 0 else 0.0
