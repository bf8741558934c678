"""Self-training in rounds: a step is a round, and what it trains may begin from the first weights each time."""

from __future__ import annotations

from typing import Annotated

from etude.recipe import AuxiliaryModel
from etude.settings import Setting
from etude.stages import Context

START = "start"
"""The auxiliary model that holds the weights which the run began with, as they are trained: `BEGINNING`."""

BEGINNING = {START: AuxiliaryModel("copy")}

Anew = Annotated[bool, Setting("each round trains the first weights; else the last round's")]


def begin_round(context: Context, anew: bool) -> None:
    """After a round was sampled and before it is learnt: puts the first weights back, with no moments, where rounds begin
    anew. The first round begins with them anyway."""
    if anew and context.step > 0:
        context.learner.become(context.auxiliary[START])
