"""What a policy has computed, so that methods can be compared, and budgets kept, at equal compute."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Meter:
    """Counts of token rows, after sharing (a prompt stored once is counted once). `size` is N, the number of
    parameters that act on a token: all but the input embedding, and the output projection."""

    size: int
    scored: int = 0  # forward only
    trained: int = 0  # forward and backward
    prefilled: int = 0  # prompt tokens
    generated: int = 0

    @property
    def flops(self) -> float:
        """2 N for a token forwarded, 6 N for a token trained (arXiv 2001.08361, without attention)."""
        return self.size * (2.0 * (self.scored + self.prefilled + self.generated) + 6.0 * self.trained)

    def state_dict(self) -> dict[str, int]:
        return asdict(self)

    def load_state_dict(self, state: dict[str, int]) -> None:
        for name in ("scored", "trained", "prefilled", "generated"):
            setattr(self, name, int(state[name]))
