"""ACT: an agent first learns to tell the expert's action from its own, by reinforcement, and then to act.

From an expert's trajectory a situation is taken, with what the expert did there and what the model that training began with would do.
The policy reasons which is better and is rewarded for the right choice alone, so that its reasons are its own. In the second part of the
run it is rewarded for the expert's action itself. Agentic Critical Training, arXiv 2603.08706.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from etude import seeds
from etude.fixtures.inference import collected
from etude.fixtures.worlds import spelling
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout import turns
from etude.rollout.attempts import answer_of, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.expert import MOVE, expert_reply, opening, same_action
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.types import Environment, Episode, Message, Task, Verdict

OUTCOME = "outcome"
"""Note: what a judgement or an action came to, one of `RIGHT`, `POSSIBLE`, `OTHER`, `FORM`."""

RIGHT, POSSIBLE, OTHER, FORM = "right", "possible", "other", "form"
"""The expert's action (named, or done); another that can be done; another; none that could be read or done."""

JUDGED = "judged"
"""Note: whether it was a judgement."""

# ---- situations ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Situation:
    """Where an action is to be taken. `before`: the expert's replies so far, and what came of each; `possible`: what can be done,
    where the world says so."""

    opening: tuple[Message, ...]
    before: tuple[tuple[str, str], ...]
    best: str
    possible: tuple[str, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The conversation up to here."""
        found = list(self.opening)
        for said, heard in self.before:
            found += [Message("assistant", said), Message("user", heard)]
        return found


async def situations(task: Task, world: Environment | None) -> list[Situation]:
    """Those that an expert passes through; the question alone where the task is no world."""
    begin = await opening(task, world)
    if world is None:
        best = await expert_reply(task, None, 0)
        return [Situation(begin, (), best)] if best else []
    found: list[Situation] = []
    before: tuple[tuple[str, str], ...] = ()
    verdict = None
    while verdict is None and (best := await expert_reply(task, world, len(before))) is not None:
        possible = tuple(str(a) for a in await turns.ask(world, "actions") or ())
        found.append(Situation(begin, before, best, possible))
        said, verdict = await turns.act(world, best)
        before = (*before, (best, said))
    return found


# ---- group rollout ------------------------------------------------------------------------------------------------------


class Critical:
    """Attempts at one situation of the expert's: to choose between two actions during the first `judge_share` of the run, else to act."""

    def __init__(
        self,
        judge_share: Annotated[
            float, Setting("share of the run that judges, before it acts", low=0, high=1)
        ] = 0.5,
        alternatives: Annotated[
            int,
            Setting("actions drawn, of which the first that is not the expert's is shown", low=1, high=64),
        ] = 4,
        author: WhoWrites = "start",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.judge_share, self.alternatives = judge_share, alternatives
        self.writer = Writer(author, address, longest)
        self.reads = self.writer.reads

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        found: list[tuple[Situation, str | None]] = []

        async def prepare(task: Task, conversation: Conversation) -> list[Episode]:
            found.append(await self._prepared(task, conversation, rollouts.progress < self.judge_share))
            return []

        failed = await rollouts.play(DEMONSTRATION + 1, prepare)
        if not found:
            return failed
        situation, other = found[0]
        expert_first = seeds.key(rollouts.key, "order") % 2 == 0

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            if other is None:
                return await acted(conversation, situation)
            return await judged(conversation, situation, other, expert_first)

        return await rollouts.plays(range(rollouts.samples), rollout)

    async def _prepared(
        self, task: Task, conversation: Conversation, judge: bool
    ) -> tuple[Situation, str | None]:
        """A situation, and what else could be done in it; None where nothing is to be judged, or nothing else was drawn."""
        world = None if task.environment is None else conversation.play(task.environment, conversation.key)
        try:
            passed = await situations(task, world)
        finally:
            if world is not None:
                await turns.close(world)
        if not passed:
            raise ValueError("the task has no solution, and its world no expert, to learn from")
        situation = passed[int(seeds.generator(conversation.key, "situation").integers(len(passed)))]
        drafts = await asyncio.gather(
            *(self._draft(conversation, situation, i) for i in range(self.alternatives if judge else 0))
        )
        others = [d for d in drafts if d.strip() and not await is_best(conversation, situation, d)]
        return situation, others[0] if others else None

    async def _draft(self, conversation: Conversation, situation: Situation, number: int) -> str:
        about = replace(conversation, key=seeds.key(conversation.key, "alternative", number))
        return await self.writer.draft(about, situation.messages)


async def is_best(conversation: Conversation, situation: Situation, text: str) -> bool:
    """Whether a reply does what the expert did; where the task is no world, whether it is right."""
    if conversation.task.environment is None:
        return (await conversation.check_runner(conversation.task, text)).correct
    return same_action(text, situation.best)


async def judged(conversation: Conversation, situation: Situation, other: str, expert_first: bool) -> Episode:
    """One judgement of two actions, in an order that all judgements of the group share."""
    task = conversation.task
    shown = (situation.best, other) if expert_first else (other, situation.best)
    text = question(situation, *shown)
    conversation.user(reworded(task.prompt, text))
    named = choice(await conversation.reply("judgement"))
    outcome = FORM if named is None else RIGHT if (named == "A") == expert_first else OTHER
    conversation.verdict(Verdict(float(outcome == RIGHT), outcome == RIGHT))
    return conversation.done(**{OUTCOME: outcome, JUDGED: True})


def question(situation: Situation, first: str, second: str) -> str:
    """What is asked about two actions."""
    *_, asked = (m.content for m in situation.opening)
    done = "\n".join(f"Action: {said}\nWhat came of it: {heard}" for said, heard in situation.before)
    before = f"What was done so far:\n{done}\n\n" if done else ""
    return (
        f"{asked}\n\n{before}Action A:\n{first}\n\nAction B:\n{second}\n\n"
        "Which action is better, A or B? Give reasons, and name it at the end."
    )


def choice(text: str) -> str | None:
    """The last "A" or "B" with which no word in small letters begins; None where there is none."""
    found = re.findall(r"(?<!\w)[AB](?![a-z])", text)
    return found[-1] if found else None


async def acted(conversation: Conversation, situation: Situation) -> Episode:
    """One action in a situation that the expert has come into."""
    conversation.user(situation.opening)
    for said, heard in situation.before:
        conversation.inject(said, "expert")
        conversation.user(heard)
    text = await conversation.reply(MOVE)
    task = conversation.task
    if await is_best(conversation, situation, text):
        outcome = RIGHT
    elif any(same_action(text, action) for action in situation.possible):
        outcome = POSSIBLE
    else:
        readable = answer_of(task, text) is not None and not situation.possible
        outcome = OTHER if readable else FORM
    conversation.verdict(Verdict(float(outcome == RIGHT), outcome == RIGHT))
    return conversation.done(**{OUTCOME: outcome, JUDGED: False})


# ---- reward -------------------------------------------------------------------------------------------------------------


def by_outcome(
    possible_reward: Annotated[float, Setting("for another action that can be done", low=-1, high=1)] = 0.1,
    form_reward: Annotated[
        float, Setting("for a judgement that names none, and an action that cannot be done", low=-1, high=0)
    ] = -0.5,
) -> Reward:
    """1 for the expert's action, 0 for the other one. `judged`: of judgements, whether they were right. A whole attempt has its verdict."""
    worth: Mapping[str, float] = {RIGHT: 1.0, POSSIBLE: possible_reward, OTHER: 0.0, FORM: form_reward}

    def reward(episode: Episode) -> dict[str, float]:
        outcome = episode.notes.get(OUTCOME)
        if outcome is None:
            return {"reward": episode.verdict.reward if episode.verdict else 0.0}
        found = {"reward": worth[outcome]}
        return {**found, JUDGED: float(outcome == RIGHT)} if episode.notes[JUDGED] else found

    return reward


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def rewards(*said: str, start: Sequence[str] = (), judge: bool = True, word: str = "a") -> list[float]:
    """Of the policy's replies to one situation of spelling a word in which c cannot be written; the start says `start` there."""
    settings: dict[str, Any] = {
        "group_rollout.judge_share": float(judge),
        "group_rollout.alternatives": max(1, len(start)),
    }
    task = spelling(word, "ab")
    made = collected(RECIPE, said, {"reference": start}, settings, len(said), task)
    return [e.reward for e in made]


RECIPE: Recipe = Recipe(
    name="act",
    base=GRPO,
    paper=Paper("Agentic Critical Training", "2603.08706", 2026),
    idea="Imitating an expert teaches what to do and not why. Here the agent is first shown two actions in a situation, the expert's and one "
    "of its own, and is rewarded only for naming the better one, so that it has to find its own reasons. Then it is rewarded for doing what the expert "
    "did.",
    equation="r = 1[names a*], -0.5 where it names none;  then r = 1[a = a*] + 0.1 [a possible, a != a*] - 0.5 [a not possible];  as GRPO",
    departures=(
        "one run in two parts: judging for its first half, a guess, then acting; the paper trains one after the other on as many "
        "situations as its table says, and has imitation as the second part as well",
        "guess: 0.1 and -0.5 are the rewards of acting, and -0.5 that of a judgement without a choice",
        "one situation of one expert's trajectory per task and update, drawn anew, and the first of four actions of the first weights that "
        "differs from the expert's; where none does, the situation is acted in",
        "the order of the two is drawn once per group, so that its judgements answer one question",
        "where the task is no world, the situation is the question, and the expert's action its solution",
    ),
    confidence="memory",
    stages={"group_rollout": stage(Critical), "reward": stage(by_outcome)},
    needs=("answer",),
    claim="Judging and then acting ends above acting alone after as many updates, more so in worlds that were not trained on.",
    manipulation=(Manipulated("two judgements in five are right", "score/judged", 0.4, read="max"),),
    examples=(
        ByHand(
            "a is best, the start says a, then b: both are shown; A, B, neither: right or wrong by the order, and -1/2",
            lambda: sorted(rewards("I take A", "B.", "both", start=("a", "b"))),
            [-0.5, 0.0, 1.0],
        ),
        ByHand(
            "acting: a is best, b can be written, c cannot",
            lambda: rewards("a", "I write:\nb", "c", judge=False),
            [1.0, 0.1, -0.5],
        ),
        ByHand(
            "the start says nothing else than the expert: there is nothing to judge, and b is an action",
            lambda: rewards("a", "b", start=("a", "A")),
            [1.0, 0.1],
        ),
        ByHand(
            "what a judgement names: the last of them, which begins no word",
            lambda: [choice(t) == c for t, c in (("A, or B", "B"), ("Both", None), ("(A)", "A"), ("", None))],
            [1, 1, 1, 1],
        ),
        Reduction(
            "no judgements, nothing off for their form, tasks that are no worlds: GRPO",
            "grpo",
            {"group_rollout.judge_share": 0.0, "reward.form_reward": 0.0},
        ),
    ),
)
