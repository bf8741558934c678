"""EEF: where the expert failed too, its trajectory may still lead to where the agent can go on by itself.

A failed trajectory of an expert is played again up to several of its turns, and the agent goes on from each. A continuation that
succeeds is imitated with those of the expert's turns that helped: after which the agent succeeds, and before which it does not. Beside
that, the expert's successes and the agent's own are imitated. Exploring Expert Failures Improves LLM Agent Tuning, arXiv 2504.13145.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.credit.masked import PartlyMasked
from etude.fixtures.inference import collected
from etude.fixtures.worlds import imitated, spelling
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.imitation.rft import right_answers
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout import turns
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.expert import (
    EXPERT,
    MOVE,
    WRONG,
    WhoTeaches,
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
from etude.stages import Context
from etude.types import Environment, Episode, Group, Message, Signal, Task, Verdict

TAKEN = "taken"
"""Note: the expert's turns and what came of each."""
BEGUN = "begun"
"""Note: how many of the expert's turns a continuation begins with."""

# ---- group rollout ------------------------------------------------------------------------------------------------------


class FromFailures:
    """Attempts, the expert's trajectory where it succeeded, and where it failed the continuations of the agent's that succeed."""

    def __init__(
        self,
        starts: Annotated[int, Setting("M, turns of a failed trajectory that are gone on from", low=0)] = 3,
        tries: Annotated[int, Setting("continuations from each", low=1)] = 1,
        expert: WhoTeaches = EXPERT,
        slips: Annotated[
            float, Setting("chance that the scripted expert errs at a turn, unnoticed", low=0, high=1)
        ] = 0.1,
        imitate_expert: Annotated[bool, Setting("the expert's successes are imitated as well")] = True,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.starts, self.tries, self.slips, self.imitate_expert = starts, tries, slips, imitate_expert
        self.writer = None if expert == EXPERT else Writer(expert, address, longest)
        self.reads = self.writer.reads if self.writer else frozenset()

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        tried = await rollouts.plays(range(rollouts.samples))
        if rollouts.task.environment is None:
            return [*tried, rollouts.demonstrate()] if self.imitate_expert else tried
        (expert,) = await rollouts.play(DEMONSTRATION + 1, self.expert)
        if expert.failure:
            return [*tried, expert]
        if expert.correct:
            return [*tried, expert] if self.imitate_expert else tried
        taken = expert.notes[TAKEN]
        begins = [b for b in spread(len(taken), self.starts) for _ in range(self.tries)]
        jobs = (rollouts.play(DEMONSTRATION + 2 + k, self.go_on(taken, b)) for k, b in enumerate(begins))
        continued = [e for found in await asyncio.gather(*jobs) for e in found]
        reached = {0: any(e.correct for e in tried)}
        for episode in (e for e in continued if not e.failure):
            begun = episode.notes[BEGUN]
            reached[begun] = reached.get(begun, False) or episode.correct
        helped = helpful(reached)
        return [*tried, *(learnable(e, helped) for e in continued if e.failure or e.correct)]

    async def expert(self, task: Task, conversation: Conversation) -> Episode:
        """The expert's trajectory, the same in all of a run as long as its model is."""
        conversation = replace(conversation, key=seeds.key("expert", task.key))
        world = conversation.play(task.environment, conversation.key)  # type: ignore[arg-type]
        taken: list[tuple[str, str]] = []
        try:
            plan = [] if self.writer else list(await turns.ask(world, "solve") or ())
            said: str | None = ""
            heard: Sequence[Message] = await opening(task, world)
            while True:
                before = [*conversation.messages, *heard]
                conversation.user(heard)
                text = await self._reply(conversation, world, before, plan, len(taken))
                if text is None:
                    conversation.verdict(Verdict(0.0, False, "The expert gave up."))
                    break
                put(conversation, text, DEMONSTRATED)
                said = await carried_out(conversation, world, text)
                taken.append((text, said or ""))
                if said is None or cut_off(conversation):
                    break
                heard = (Message("user", said),)
        finally:
            await turns.close(world)
        return replace(conversation.done(**{TAKEN: taken}), player=DEMONSTRATED)

    async def _reply(
        self,
        conversation: Conversation,
        world: Environment,
        said: Sequence[Message],
        plan: Sequence[str],
        number: int,
    ) -> str | None:
        """The expert's next turn: a model's; or that of the plan, which a slip replaces and which goes on as if nothing had happened."""
        if self.writer is not None:
            return await self.writer.draft(conversation, said)
        if plan:
            best = plan[number] if number < len(plan) else None
        else:
            best = await expert_reply(conversation.task, world, number)
        draw = seeds.generator(conversation.key, "slips", number)
        if best is None or draw.random() >= self.slips:
            return best
        return await wrong_command(world, best, draw) or best

    def go_on(self, taken: Sequence[tuple[str, str]], begin: int) -> Any:
        """A rollout that plays the expert's first turns again and goes on as the policy does."""

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            key = seeds.key("expert", task.key)
            world = conversation.play(task.environment, key)  # type: ignore[arg-type]
            try:
                conversation.user(await opening(task, world))
                for text, heard in taken[:begin]:
                    conversation.inject(text, WRONG)
                    if await turns.act(world, text) != (heard, None):
                        raise ValueError("the world did not say the same again to the same replies")
                    conversation.user(heard)
                while True:
                    text = await conversation.reply(MOVE)
                    if cut_off(conversation):
                        break
                    said = await carried_out(conversation, world, text)
                    if said is None:
                        break
                    conversation.user(said)
            finally:
                await turns.close(world)
            return replace(conversation.done(**{BEGUN: begin}), player=DEMONSTRATED)

        return rollout


def spread(turns_: int, starts: int) -> list[int]:
    """Up to `starts` numbers of turns after which is gone on, evenly spread between the first and the last turn."""
    found = {round(turns_ * (m + 1) / (starts + 1)) for m in range(starts)}
    return sorted(n for n in found if 0 < n < turns_)


def helpful(reached: Mapping[int, bool]) -> set[int]:
    """The expert's turns (from 0) after which the agent succeeded and before which it did not. `reached`: {number of turns played:
    whether it then succeeded}."""
    states = sorted(reached)
    return {
        turn for a, b in itertools.pairwise(states) if reached[b] and not reached[a] for turn in range(a, b)
    }


def learnable(episode: Episode, helped: Collection[int]) -> Episode:
    """A continuation whose helpful turns of the expert's are to be learnt as well."""
    number = itertools.count()
    spans = [
        replace(s, tag=MOVE if next(number) in helped else WRONG) if s.tag == WRONG else s
        for s in episode.spans
    ]
    return replace(episode, spans=tuple(spans))


# ---- credit -------------------------------------------------------------------------------------------------------------


@writes(IMITATION)
class OwnAndExperts:
    """Imitation of the different right attempts, of the expert's successes, and of continuations without the expert's other turns."""

    def __init__(
        self,
        masked: Annotated[bool, Setting("turns of the expert's that did not help are not imitated")] = True,
    ) -> None:
        self.own, self.others = right_answers(), PartlyMasked(masked)
        self.continued = 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        solved = [any(BEGUN in e.notes for e in g.demonstrations) for g in groups]
        self.continued = float(np.mean(solved)) if solved else 0.0
        return [*self.own(groups, context), *self.others(groups, context)]

    def report(self) -> dict[str, float]:
        """`continued`: the share of tasks at which the expert failed and a continuation succeeded."""
        return {"continued": self.continued, **self.others.report()}


# ---- the recipe ---------------------------------------------------------------------------------------------------------


FAILS, LOSES, MENDS = "accccc", "cccccc", "<<b"


def learnt(said: str, expert: str = FAILS, masked: bool = True, **settings: Any) -> list[int]:
    """How many tokens of each signal are imitated, where "ab" is to be spelt in six turns: the policy and a model as expert say these
    letters, a turn each. Gone on is from turn 3, where nothing else is set."""
    changed = {"starts": 1, "expert": "teacher", **settings}
    given = {f"group_rollout.{name}": value for name, value in changed.items()}
    episodes = collected(RECIPE, said, {"teacher": expert}, given, task=spelling())
    return imitated(RECIPE, episodes, masked=masked)


RECIPE: Recipe = Recipe(
    name="eef",
    base=RFT,
    paper=Paper("Exploring Expert Failures Improves LLM Agent Tuning", "2504.13145", 2025),
    idea="An expert fails at the hardest tasks, and the agent does not solve them alone. But an expert that failed was often on the right "
    "way for a while. So the agent goes on from the middle of such failures; where it succeeds it imitates its own turns, and those "
    "of the expert's without which it would not have.",
    equation="L = - mean_t log pi over own successes, expert successes, and (s_j, tau_>j) that succeed, with turns a..b of the expert's where "
    "S(b) and not S(a)",
    departures=(
        "guess: the expert's turns between two starts help where a continuation from the later one succeeds and none from the earlier one does",
        "guess: three starts, one continuation from each",
        "a step is a round, from the current weights, with the policy as it is; the paper collects in rounds and trains the base model on all",
        "the expert's trajectories are not given: the scripted expert of a world follows its plan, errs unnoticed at one turn of ten, and "
        "gives up at the plan's end; group_rollout.expert names a model",
        "a world must say the same again to the same replies; where the task is no world, its solution is the expert's success",
    ),
    confidence="guess",
    stages={"group_rollout": stage(FromFailures), "credit": stage(OwnAndExperts)},
    needs=("answer",),
    claim="More training tasks are solved that neither the expert nor rejection sampling solved.",
    manipulation=(
        Manipulated(
            "one task in fifty is solved from where the expert failed", r"credit\.continued", 0.02, read="max"
        ),
    ),
    examples=(
        ByHand(
            "three states evenly spread over eight turns, and over two",
            lambda: [spread(8, 3), [*spread(2, 3), 0, 0]],
            [[2, 4, 6], [1, 0, 0]],
        ),
        ByHand(
            "success from 2 and from 6, not from 0 and 4: turns 0, 1, 4 and 5",
            lambda: sorted(helpful({6: True, 0: False, 2: True, 4: False})),
            [0, 1, 4, 5],
        ),
        ByHand(
            "alone it fails; after the expert's a c c it rubs them out and succeeds: six turns, with their ends",
            lambda: learnt(LOSES + MENDS),
            [12],
        ),
        ByHand(
            "it succeeds alone (two turns), so the expert's turns did not help (three of its own); unmasked they are imitated",
            lambda: [learnt("ab" + MENDS), learnt("ab" + MENDS, masked=False)],
            [[4, 6], [4, 12]],
        ),
        ByHand(
            "from turn 2 on it succeeds, from turn 4 on there are not turns enough",
            lambda: learnt(LOSES + "<b" + "xx", starts=2),
            [8],
        ),
        ByHand("the expert succeeds: its two turns", lambda: learnt(LOSES, "ab"), [4]),
        ByHand("and they are not wanted", lambda: learnt(LOSES, "ab", imitate_expert=False), []),
        Reduction(
            "nothing of the expert's: rejection-sampling fine-tuning",
            "rft",
            {"group_rollout.imitate_expert": False, "group_rollout.starts": 0},
        ),
    ),
)
