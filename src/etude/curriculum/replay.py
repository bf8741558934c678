"""Training on what older policies sampled. Episodes keep the log-probabilities under the policy that sampled them, so
an objective with an importance ratio corrects for how far the policy has moved since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from etude.settings import Setting
from etude.stages import Context
from etude.types import Group


class Replay:
    """A filter that trains on as many groups as were drawn, chosen evenly without replacement from those of the last
    `steps` steps. `steps` = 1: the fresh groups alone."""

    def __init__(
        self, steps: Annotated[int, Setting("steps for which a group is kept", "steps", low=1)] = 8
    ) -> None:
        self.steps = steps
        self.held: list[tuple[int, Group]] = []  # (step at which it was drawn, group)

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Group]:
        oldest = context.step - self.steps + 1
        self.held = [(step, group) for step, group in self.held if step >= oldest]
        self.held += [(context.step, group) for group in groups]
        picks = context.rng("replay", context.drawn).choice(len(self.held), len(groups), replace=False)
        return [self.held[i][1] for i in sorted(picks)]

    def state_dict(self) -> dict[str, Any]:
        return {"held": list(self.held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = list(state["held"])
