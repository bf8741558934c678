"""Training on what older policies wrote. Their log-probabilities travel with the episodes, so an objective
with an importance ratio knows how far the policy has moved since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.settings import Setting
from etude.types import Group


class Replay:
    """As many groups as were drawn, chosen evenly from those of the last `steps` steps. 1: only fresh ones."""

    def __init__(
        self, steps: Annotated[int, Setting("steps for which a group is kept", "steps", low=1)] = 8
    ) -> None:
        self.steps = steps
        self.held: list[tuple[int, Group]] = []  # with the step at which each was drawn

    def __call__(self, groups: Sequence[Group], context: Any) -> list[Group]:
        oldest = context.step - self.steps + 1
        self.held = [kept for kept in self.held if kept[0] >= oldest]
        self.held += [(context.step, group) for group in groups]
        chosen = context.rng("replay", context.drawn).choice(len(self.held), len(groups), replace=False)
        return [self.held[i][1] for i in sorted(chosen)]

    def state_dict(self) -> dict[str, Any]:
        return {"held": list(self.held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = list(state["held"])
