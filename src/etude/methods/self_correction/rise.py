"""RISE: sequences of one's own attempts that end in a better one are imitated."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Annotated, Any

from etude.credit.imitate import imitate, tagged
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt, less_form
from etude.rollout.attempts import attempt, joined, nth
from etude.rollout.conversation import Conversation
from etude.rollout.speakers import Address, Longest, Speaker, Who
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal, Task

WRONG = "Your answer is not right. Try again."


class Introspect:
    """Attempts in one conversation until one is right. The last turn allowed is an improved one: the best of
    several tries of the policy's own, or one answer of another speaker's (RISE, arXiv 2407.18219)."""

    def __init__(
        self,
        turns: Annotated[int, Setting("attempts in all, the improved one among them", low=1, high=16)] = 2,
        candidates: Annotated[int, Setting("tries of which the best is kept", low=1)] = 16,
        improver: Who = "policy",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = Speaker(improver, address, longest)
        self.reads, self.turns, self.candidates = self.speaker.reads, turns, candidates

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        said = task.prompt
        for number in range(1, self.turns):
            verdict, _ = await attempt(conversation, said, number)
            if verdict.correct:
                return conversation.done()
            said = joined(WRONG, task.prompt)
        if self.speaker.who != "policy":
            text = await self.speaker.words(conversation, [*conversation.messages, *said])
            conversation.user(said)
            conversation.inject(text, nth(self.turns))
            await conversation.check(text)
            return conversation.done()
        tries = [conversation, *(conversation.fork(k) for k in range(1, self.candidates))]
        verdicts = await asyncio.gather(*(attempt(t, said, self.turns) for t in tries))
        best = max(range(len(tries)), key=lambda k: (verdicts[k][0].reward, -k))
        return tries[best].done()


KEEP = {
    "all": lambda rewards: True,
    "success": lambda rewards: rewards[-1] == 1,
    "better": lambda rewards: len(rewards) == 1 or rewards[-1] > rewards[-2],
    "best": lambda rewards: rewards[-1] == max(rewards),
}


def reward_weight(reward: float, tau: float) -> float:
    """exp(r / tau)."""
    return math.exp(reward / tau)


def last_turn(
    tau: Annotated[float, Setting("temperature of the weight exp(r / tau)", low=0.05)] = 0.4,
    keep: Annotated[
        str, Setting("which episodes are imitated, by their last reward", choices=tuple(KEEP))
    ] = "better",
):
    """The last attempt of an episode, weighted; earlier ones are context. An attempt in which no answer was found
    counts 1 less (RISE, arXiv 2407.18219)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.episodes):
            rewards = less_form(episode, 1.0)
            if KEEP[keep](rewards):
                last = tagged(episode, nth(len(episode.verdicts)))
                signals.append(imitate(episode, last, reward_weight(rewards[-1], tau)))
        return signals

    return credit


RECIPE = Recipe(
    name="rise",
    n=18,
    paper=Paper(
        "Recursive Introspection: Teaching Language Model Agents How to Self-Improve", "2407.18219", 2024
    ),
    idea="The model answers, hears that it was wrong, and answers again in the same conversation. "
    "The last answer is improved: it is the best of several of its own, or a stronger model's. "
    "Only that last answer is imitated, the better the more, so the model learns to mend what it sees itself write.",
    equation="L = - mean_i exp(r_i / tau) mean_t log pi(y_it | x, y_1, f_1, ..., f_{k-1}), y the last attempt; r = 1, 0 or -1",
    departures=(
        "one round per step, from the current weights, where the paper alternates long rounds of collecting and fine-tuning",
        "an attempt that is right at once is imitated as it is; the paper improves every state of a sequence",
        "the reward is not centred by the prompt's mean, as in the released code",
    ),
    stages={
        "rollout": stage(Introspect),
        "reward": stage(each_attempt),
        "credit": stage(last_turn),
        "objective": stage(cross_entropy, mean="episode"),
    },
    needs=("text",),
    claim="Accuracy at the fifth turn minus that of the first rises with training; fine-tuning on the same answers as single "
    "turns does not show it.",
    examples=(
        ByHand(
            "right, wrong, unreadable at tau = 0.4",
            lambda: [reward_weight(r, 0.4) for r in (1, 0, -1)],
            [math.exp(2.5), 1, math.exp(-2.5)],
        ),
        ByHand(
            "wrong then wrong, wrong then right, right at once: which are better",
            lambda: [KEEP["better"](r) for r in ([0, 0], [0, 1], [1])],
            [False, True, True],
        ),
        Reduction(
            "one turn of one try, right answers only: rejection-sampling fine-tuning, weighed by exp(1 / tau)",
            "rft",
            {"rollout.turns": 1, "rollout.candidates": 1, "credit.keep": "success", "credit.tau": 1.0},
            {"credit.distinct": False, "objective.mean": "episode"},
            scale=math.e,
        ),
    ),
)
