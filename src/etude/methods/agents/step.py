"""STeP: trajectories in which a teacher stops a wrong step, and the agent takes it back and does the right thing. Wrong steps are masked.

The agent plays; before a step is carried out the teacher looks at it. A wrong one stays where it is, followed by what is wrong with
it and by the step to take, which is carried out instead. Trajectories that end well are imitated beside the expert's, but for
their wrong steps. Training LLM-Based Agents with Synthetic Self-Reflected Trajectories and Partial Masking, arXiv 2505.20023.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.credit.masked import PartlyMasked
from etude.fixtures.inference import collected
from etude.fixtures.worlds import imitated, spelling
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout import turns
from etude.rollout.attempts import reworded
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.demonstrations import WarmupShare
from etude.rollout.expert import (
    CORRECTION,
    EXPERT,
    MOVE,
    WhoTeaches,
    called_wrong,
    carried_out,
    cut_off,
    expert_reply,
    opening,
    same_action,
)
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Address, Longest, Writer
from etude.settings import Setting, stage
from etude.types import Environment, Episode, Message, Task

Correction = tuple[str, str]  # what is wrong with a step, and the step to take instead

# ---- the teacher --------------------------------------------------------------------------------------------------------


def question(task: Task, log: Sequence[tuple[str, str]], step: str) -> str:
    """What a model that teaches is asked about a step."""
    done = "\n".join(f"Step: {said}\nWhat came of it: {heard}" for said, heard in log) or "nothing"
    return (
        f"{task.prompt[-1].content}\n\nWhat was done so far:\n{done}\n\nThe next step of an agent:\n{step}\n\n"
        "If this step helps, answer only 'Right'. Otherwise say in one sentence what is wrong with it, and then, on a line of its "
        "own, the step that the agent should take instead, as 'Step: ...'."
    )


def read_correction(text: str) -> Correction | None:
    """What stands before the last "Step:" and after it; None where nothing does."""
    why, found, better = text.rpartition("Step:")
    return (why.strip(), better.strip()) if found and better.strip() else None


# ---- trajectories -------------------------------------------------------------------------------------------------------


class SelfReflected:
    """The demonstration, and after the warm-up `traces` trajectories of the policy's with a teacher beside it."""

    def __init__(
        self,
        traces: Annotated[int, Setting("trajectories with a teacher, per task", low=0)] = 1,
        teacher: WhoTeaches = EXPERT,
        reflection: Annotated[
            str, Setting("what stands between a wrong step and the expert's in its place")
        ] = "Wait, the last step is wrong. It should be:",
        address: Address = "",
        longest: Longest = None,
        warmup_share: WarmupShare = 0.25,
    ) -> None:
        self.traces, self.reflection, self.warmup_share = traces, reflection, warmup_share
        self.writer = None if teacher == EXPERT else Writer(teacher, address, longest)
        self.reads = self.writer.reads if self.writer else frozenset()

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        demonstration = rollouts.demonstrate()
        number = 0 if rollouts.progress < self.warmup_share else self.traces
        jobs = (rollouts.play(DEMONSTRATION + 1 + k, self.trace) for k in range(number))
        return [demonstration, *(e for found in await asyncio.gather(*jobs) for e in found)]

    async def trace(self, task: Task, conversation: Conversation) -> Episode:
        """One trajectory. What of it was not sampled is what the teacher put in."""
        world = conversation.environment()
        try:
            conversation.user(await opening(task, world))
            log: list[tuple[str, str]] = []
            while (said := await self._turn(conversation, world, log)) is not None:
                conversation.user(said)
        finally:
            if world is not None:
                await turns.close(world)
        return replace(conversation.done(), player=DEMONSTRATED)

    async def _turn(
        self, conversation: Conversation, world: Environment | None, log: list[tuple[str, str]]
    ) -> str | None:
        """A step, corrected where it is wrong, and what came of it; None at the end."""
        begin = len(conversation.spans)
        step = await conversation.reply(MOVE)
        if cut_off(conversation):
            return None
        if (found := await self._correction(conversation, world, step, log)) is not None:
            called_wrong(conversation, begin)
            why, step = found
            take_back(conversation, f"\n{why}\n{step}")
        said = await carried_out(conversation, world, step)
        log.append((step, said or ""))
        return said

    async def _correction(
        self,
        conversation: Conversation,
        world: Environment | None,
        step: str,
        log: Sequence[tuple[str, str]],
    ) -> Correction | None:
        task = conversation.task
        if getattr(world, "over", False):  # ended by a call
            return None
        if self.writer is not None:
            asked = reworded(task.prompt, question(task, log, step))
            return read_correction(await self.writer.draft(conversation, asked))
        if world is None and (await conversation.check_runner(task, step)).correct:
            return None
        best = await expert_reply(task, world, len(log))
        if best is None or (world is not None and same_action(step, best)):
            return None
        return self.reflection, best


def take_back(conversation: Conversation, text: str) -> None:
    """Goes on with the policy's turn in these words, and ends it."""
    conversation.interject(text, CORRECTION)
    stop = np.array(conversation.generator.renderer.stops[:1], np.int32)
    last = conversation.spans[-1]
    conversation.spans[-1] = replace(last, tokens=np.concatenate([last.tokens, stop]))
    whole = conversation.messages[-1].content + text
    conversation.messages[-1] = Message("assistant", whole)
    conversation.text, conversation.stop = whole, "end"


# ---- the recipe ---------------------------------------------------------------------------------------------------------

CORRECTIONS = (
    ("Right", None),
    ("Step: a", ("", "a")),
    ("Its Step: b is wrong.\nStep: a\n", ("Its Step: b is wrong.", "a")),
)


def played(*said: str, says: Sequence[str] = (), **settings: object) -> list[Episode]:
    """The demonstration of spelling "ab", and a trajectory of a policy that says these letters. `says`: what a model that teaches
    says of each; else the expert teaches."""
    teacher = "teacher" if says else EXPERT
    changed = {"warmup_share": 0.0, "reflection": "no:", "teacher": teacher, **settings}
    given = {f"group_rollout.{name}": value for name, value in changed.items()}
    return collected(RECIPE, said, {"teacher": says}, given, task=spelling())


RECIPE: Recipe = Recipe(
    name="step",
    base=SFT,
    paper=Paper(
        "Training LLM-Based Agents with Synthetic Self-Reflected Trajectories and Partial Masking",
        "2505.20023",
        2025,
    ),
    idea="The agent plays, and a teacher looks at each step before it is carried out. A wrong step stays in the record, followed by what "
    "is wrong with it and by the right step. The agent learns from such records to stop and to correct itself, but the wrong "
    "steps themselves are left out of the loss.",
    equation="L = - mean_t log pi(y_t | history) over expert trajectories, right steps, reflections and corrections; 0 on wrong steps",
    departures=(
        "trajectories are made anew at every update with the policy as it is; in the paper once, with an agent that imitated a part of "
        "the expert's, whose part is here the warm-up: the first quarter of the run",
        "guess: the reflection and the corrected step end the turn that the wrong step began, and the wrong step is not carried out",
        "the teacher is the world's scripted expert by default, for whom every step that is not its own is wrong, and whose reflection "
        "is one sentence; group_rollout.teacher names a model in its place",
        "one trajectory with a teacher per task and demonstration; where the task is no world its solution corrects a wrong answer",
    ),
    confidence="memory",
    stages={
        "group_rollout": stage(SelfReflected),
        "reward": stage(verdict_if_any),
        "credit": stage(PartlyMasked),
    },
    claim="After a wrong step, agents trained with masked wrong steps recover more often than with expert trajectories alone, and than "
    "where wrong steps are imitated too.",
    manipulation=(Manipulated("one step in twenty is corrected", r"credit\.wrong", 0.05, read="max"),),
    examples=(
        ByHand(
            "the expert's a and b, with their ends; b is wrong, 'no:' and a take its place (7), then b is right (2)",
            lambda: imitated(RECIPE, played("b", "b")),
            [4, 9],
        ),
        ByHand(
            "unmasked: the wrong b as well", lambda: imitated(RECIPE, played("b", "b"), masked=False), [4, 10]
        ),
        ByHand("two right steps: both", lambda: imitated(RECIPE, played("a", "b")), [4, 4]),
        ByHand(
            "a model that teaches puts a in the place of c, with its reason: 15 tokens and b with its end",
            lambda: imitated(RECIPE, played("c", "b", says=("it is not. Step: a", "Right"))),
            [4, len("\nit is not.\na") + 1 + 2],
        ),
        ByHand(
            "one that finds c right six times: that ends badly and is not learnt",
            lambda: imitated(RECIPE, played(*"cccccc", says=["Right"] * 6)),
            [4],
        ),
        ByHand("during the warm-up the demonstration alone", lambda: len(played(warmup_share=0.1)), 1),
        ByHand(
            "what a teacher says is wrong, and its step: the last one; nothing without a step",
            lambda: [read_correction(said) == found for said, found in CORRECTIONS],
            [1, 1, 1],
        ),
        Reduction(
            "no trajectories with a teacher: supervised fine-tuning", "sft", {"group_rollout.traces": 0}
        ),
    ),
)
