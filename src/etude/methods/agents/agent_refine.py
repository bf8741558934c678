"""AgentRefine: in many worlds, trajectories with wrong turns and what was done about them; wrong turns are read and not imitated.

An expert plays and errs now and then, on purpose: it gives a command that cannot be given, or one that does not help. The world says
what comes of it, and the expert goes on from there. A trajectory counts where it reaches the goal and mended enough errors.
AgentRefine: Enhancing Agent Generalization through Refinement Tuning, arXiv 2501.01702; its code is not released.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from etude import seeds
from etude.credit.masked import PartlyMasked
from etude.fixtures.inference import collected
from etude.fixtures.worlds import imitated, spelling
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout import turns
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.expert import (
    EXPERT,
    MOVE,
    WRONG,
    WhoTeaches,
    called_wrong,
    carried_out,
    cut_off,
    expert_reply,
    opening,
    put,
    wrong_command,
)
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Address, Longest, Writer
from etude.settings import Setting, stage
from etude.tasks.worlds.play import UNKNOWN
from etude.types import Environment, Episode, Message, Task


class Refined:
    """`trajectories` of a task that is a world: those that end well, and in which at least `least_errors` wrong turns were followed by
    a right one. The demonstration of a task that is none."""

    def __init__(
        self,
        trajectories: Annotated[int, Setting("trajectories per task", low=1)] = 1,
        player: WhoTeaches = EXPERT,
        error_share: Annotated[
            float, Setting("chance that the scripted expert errs at a turn", low=0, high=0.9)
        ] = 0.3,
        least_errors: Annotated[int, Setting("errors that must have been mended", low=0)] = 1,
        thought: Annotated[
            str, Setting("what the scripted expert says in the turn after an error; empty: nothing")
        ] = "That did not help. I will do something else.",
        refusal: Annotated[str, Setting("how a world begins to speak where it refuses a command")] = UNKNOWN,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.trajectories, self.error_share, self.least_errors = trajectories, error_share, least_errors
        self.thought, self.refusal = thought, refusal
        self.writer = None if player == EXPERT else Writer(player, address, longest)
        self.reads = self.writer.reads if self.writer else frozenset()

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if rollouts.task.environment is None:
            return [rollouts.demonstrate()]
        jobs = (rollouts.play(DEMONSTRATION + 1 + k, self.trajectory) for k in range(self.trajectories))
        played = [e for found in await asyncio.gather(*jobs) for e in found]
        return [e for e in played if e.failure or (e.correct and mended(e) >= self.least_errors)]

    async def trajectory(self, task: Task, conversation: Conversation) -> Episode:
        """One trajectory, whoever plays it."""
        world = conversation.environment()
        assert world is not None
        try:
            heard, right, erred = await opening(task, world), 0, False
            while True:
                begin = len(conversation.spans)
                text, erred = await self._say(conversation, world, heard, right, erred)
                if cut_off(conversation):
                    break
                said = await carried_out(conversation, world, text)
                erred = erred or (said is not None and said.startswith(self.refusal))
                if erred:
                    called_wrong(conversation, begin)
                right += not erred
                if said is None:
                    break
                heard = (Message("user", said),)
        finally:
            await turns.close(world)
        return replace(conversation.done(), player=DEMONSTRATED)

    async def _say(
        self,
        conversation: Conversation,
        world: Environment,
        heard: Sequence[Message],
        right: int,
        erred: bool,
    ) -> tuple[str, bool]:
        """The next turn, after `right` right ones, and whether it errs on purpose."""
        before = list(conversation.messages)
        conversation.user(heard)
        if self.writer is None:
            return await self._expert(conversation, world, right, erred)
        if self.writer.who == "policy":
            return await conversation.reply(MOVE), False
        text = await self.writer.draft(conversation, [*before, *heard])
        put(conversation, text)
        return text, False

    async def _expert(
        self, conversation: Conversation, world: Environment, right: int, erred: bool
    ) -> tuple[str, bool]:
        best = await expert_reply(conversation.task, world, right)
        if best is None:
            raise ValueError("the world has no expert who knows how to go on from here")
        draw = seeds.generator(conversation.key, "errors", len(conversation.spans))
        wrong = await wrong_command(world, best, draw) if draw.random() < self.error_share else None
        again = f"{self.thought}\n{best}" if erred and self.thought else best
        put(conversation, again if wrong is None else wrong)
        return conversation.text, wrong is not None


def mended(episode: Episode) -> int:
    """How many wrong turns were followed by a right one."""
    tags = [s.tag for s in episode.spans if s.tag in (MOVE, WRONG)]
    return sum(pair == (WRONG, MOVE) for pair in itertools.pairwise(tags))


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def learnt(*said: str, masked: bool = True, **settings: object) -> list[int]:
    """How many tokens are imitated of trajectories of spelling "ab": of a policy that says these letters, else of the expert."""
    changed = {"player": "policy" if said else EXPERT, "trajectories": 1, **settings}
    given = {f"group_rollout.{name}": value for name, value in changed.items()}
    episodes = collected(RECIPE, said, settings=given, task=spelling())
    return imitated(RECIPE, episodes, masked=masked)


RECIPE: Recipe = Recipe(
    name="agent_refine",
    base=SFT,
    paper=Paper("AgentRefine: Enhancing Agent Generalization through Refinement Tuning", "2501.01702", 2025),
    idea="In many different worlds trajectories are made in which the player errs now and then, hears from the world what came of it, and "
    "mends it. Wrong turns are read and not imitated; the turns that mend them are. So an agent learns to go on after an error, "
    "also in worlds that it never saw.",
    equation="L = - mean over tokens of turns that are not wrong of log pi(y_t | history, wrong turns included)",
    departures=(
        "the worlds are those of the run's tasks and say themselves what comes of a command; in the paper a strong model, given a persona, "
        "writes places, actions and goals, and plays both the game master and the player",
        "the player is the worlds' scripted expert, who errs at three turns of ten (a guess) and says one sentence in the turn after it; "
        "group_rollout.player names a model instead, of whose turns those are wrong that the world refuses",
        "one mended error must be in a trajectory (a guess); what does not count is left out, not made again from its last valid turn",
        "a task that is no world is demonstrated; new trajectories at every update",
    ),
    confidence="memory",
    stages={
        "group_rollout": stage(Refined),
        "reward": stage(verdict_if_any),
        "credit": stage(PartlyMasked),
    },
    claim="Trained on many small worlds with wrong turns masked, it does better in a world that it never saw than on trajectories without "
    "errors.",
    manipulation=(Manipulated("one turn in ten is wrong", r"credit\.wrong", 0.1, read="max"),),
    examples=(
        ByHand(
            "x is refused, then a and b with their ends: x is not learnt; unmasked it is",
            lambda: [*learnt("x", "a", "b"), *learnt("x", "a", "b", masked=False)],
            [4, 6],
        ),
        ByHand("one error is mended, two are asked for", lambda: learnt("x", "a", "b", least_errors=2), []),
        ByHand(
            "c can be written, so the world does not refuse it: it counts as right, as does rubbing it out",
            lambda: learnt("c", "<", "a", "b", least_errors=0),
            [8],
        ),
        ByHand("it never ends well: left out", lambda: learnt(*"xcxcxc", least_errors=0), []),
        ByHand(
            "an expert who never errs: a and b",
            lambda: learnt(error_share=0.0, least_errors=0),
            [4],
        ),
        Reduction("tasks that are no worlds: supervised fine-tuning", "sft"),
    ),
)
