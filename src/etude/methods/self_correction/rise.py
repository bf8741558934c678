"""RISE: sequences of one's own attempts that end in a better one are imitated.

The model answers, hears that it was wrong, and answers again in the same conversation. Its last turn is improved (the
best of several of its own, or another model's). Every turn is imitated, the better the more, with the attempts that
failed in view. Recursive Introspection, arXiv 2407.18219."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.fixtures.attempts import credited_signals, example_attempts, weights_of
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt, less_form
from etude.rollout.attempts import attempt, attempt_tag
from etude.rollout.basic import Attempts
from etude.rollout.conversation import Conversation
from etude.rollout.second import Again, worded
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Message, Signal, Task

TRY_AGAIN = "Your answer is not right. Try again.\n\n{question}"


class Introspect:
    """Attempts in one conversation until one is right. The last that is allowed is an improved one: the best of
    several tries of the policy's own, or one answer of another writer."""

    def __init__(
        self,
        attempts: Attempts = 2,
        candidates: Annotated[int, Setting("tries of which the best is kept", low=1)] = 16,
        again: Again = TRY_AGAIN,
        writer: WhoWrites = "policy",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.again = worded(again, "question")
        self.writer = Writer(writer, address, longest)
        self.reads, self.attempts, self.candidates = self.writer.reads, attempts, candidates

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        said = task.prompt
        for number in range(1, self.attempts):
            verdict, _ = await attempt(conversation, said, number)
            if verdict.correct:
                return conversation.done()
            said = (Message("user", self.again.format(question=task.prompt[-1].content)),)
        if self.writer.who != "policy":
            text = await self.writer.draft(conversation, [*conversation.messages, *said])
            conversation.user(said)
            conversation.inject(text, attempt_tag(self.attempts))
            await conversation.check(text)
            return conversation.done()
        tries = [conversation, *(conversation.fork(k) for k in range(1, self.candidates))]
        verdicts = await asyncio.gather(*(attempt(t, said, self.attempts) for t in tries))
        best = max(range(len(tries)), key=lambda k: (verdicts[k][0].reward, -k))
        return tries[best].done()


KEEP = {
    "all": lambda rewards: True,
    "success": lambda rewards: rewards[-1] == 1,
    "better": lambda rewards: len(rewards) == 1 or rewards[-1] > rewards[-2],
    "best": lambda rewards: rewards[-1] == max(rewards),
}
"""Which turns are imitated, by the rewards up to theirs. The first is, unless only success is."""

NO_ANSWER = 1.0
"""Taken off the reward of an attempt in which no answer was found: r is 1, 0 or -1."""


def up_to(episode: Episode, tag: str) -> Episode:
    """The conversation until the part `tag` ends."""
    last = max(i for i, span in enumerate(episode.spans) if span.tag == tag)
    return replace(episode, spans=episode.spans[: last + 1])


@writes(IMITATION)
def turns(
    reward_temperature: Annotated[float, Setting("tau of the weight exp(r / tau)", low=0.05)] = 0.4,
    keep: Annotated[
        str, Setting("which turns are imitated, by their reward and those before", choices=tuple(KEEP))
    ] = "all",
) -> Credit:
    """Every turn by itself, with weight exp(r / tau), after the turns before it, which are context; none that repeats
    an earlier one word for word."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.episodes):
            rewards, said = less_form(episode, NO_ANSWER), set[bytes]()
            for k, r in enumerate(rewards, 1):
                turn = up_to(episode, attempt_tag(k))
                on = tagged(turn, attempt_tag(k))
                words = turn.tokens[on].tobytes()
                if KEEP[keep](rewards[:k]) and words not in said:
                    signals.append(imitate(turn, on, math.exp(r / reward_temperature)))
                said.add(words)
        return signals

    return credit


def _imitated(keep: str, tag: int = 2) -> list[float]:
    """The weights of the attempt `tag` in: wrong, wrong; wrong, right; unreadable, wrong; right, unreadable; right."""
    episodes = [
        example_attempts(0.0, 0.0),
        example_attempts(0.0, 1.0),
        example_attempts(0.0, 0.0, answers=(None, "4")),
        example_attempts(1.0, 0.0, answers=("7", None)),
        example_attempts(1.0),
    ]
    signals = credited_signals(RECIPE, episodes, settings={"credit.keep": keep})
    return weights_of(signals, attempt_tag(tag), IMITATION)


RIGHT, UNREADABLE = math.exp(1 / 0.4), math.exp(-1 / 0.4)

RECIPE = Recipe(
    name="rise",
    paper=Paper(
        "Recursive Introspection: Teaching Language Model Agents How to Self-Improve", "2407.18219", 2024
    ),
    published_lr=1e-5,
    idea="The model answers, hears that it was wrong, and answers again in the same conversation. "
    "The last answer is improved: it is the best of several of its own, or a stronger model's. "
    "Every answer is imitated, the better the more, so the model learns to mend what it sees itself write.",
    equation="L = - mean_k exp(r_k / tau) mean_t log pi(y_kt | x, y_1, f_1, ..., y_{k-1}, f_{k-1}), over all turns; r = 1, 0 or -1",
    departures=(
        "one round per step, from the current weights, where the paper alternates long rounds of collecting and fine-tuning",
        "only the last turn is the best of several, where the release may draw several at every turn",
        "the reward is not centred by the prompt's mean, as in the released code",
        "when examined, five turns follow one another until one is right (the paper's p1@t5), with all of them in view; the paper shows the "
        "last two and also lets the five vote",
    ),
    stages={
        "rollout": stage(Introspect),
        "reward": stage(each_attempt),
        "credit": stage(turns),
        "objective": stage(cross_entropy, mean="episode"),
    },
    exam={"rollout.attempts": 5, "rollout.candidates": 1, "rollout.writer": "policy"},
    needs=("text",),
    claim="Accuracy at the fifth turn minus that of the first rises with training; fine-tuning on the same answers as single "
    "turns does not show it.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "second attempts, all of them: exp(r / 0.4) of 0, 1, 0, -1",
            lambda: _imitated("all"),
            [1, RIGHT, 1, UNREADABLE],
        ),
        ByHand(
            "better than the attempt before: wrong then right, unreadable then wrong",
            lambda: _imitated("better"),
            [RIGHT, 1],
        ),
        ByHand("the best of the episode: also wrong after wrong", lambda: _imitated("best"), [1, RIGHT, 1]),
        ByHand("right at last", lambda: _imitated("success"), [RIGHT]),
        ByHand(
            "first attempts, whatever follows: exp(r / 0.4) of 0, 0, -1, 1, 1",
            lambda: _imitated("better", 1),
            [1, 1, UNREADABLE, RIGHT, RIGHT],
        ),
        ByHand("first attempts where only success counts", lambda: _imitated("success", 1), [RIGHT, RIGHT]),
        OffPolicy(
            "an episode of two tokens with weight 3, one of one token with weight 1: the mean of their token means",
            ratio=(1.0, 2.0, 1.0),
            advantage=(0.0, 0.0, 0.0),
            lengths=(2, 1),
            weights={IMITATION: (3, 3, 1)},
            loss=(3 * (1 + 1 - math.log(2)) / 2 + 1) / 2,
            gradient=(-3 / 4, -3 / 4, -1 / 2),
        ),
        Reduction(
            "one turn of one try, right answers only: rejection-sampling fine-tuning, weighed by exp(1 / tau)",
            "rft",
            {
                "rollout.attempts": 1,
                "rollout.candidates": 1,
                "credit.keep": "success",
                "credit.reward_temperature": 1.0,
            },
            {"credit.distinct": False, "objective.mean": "episode"},
            scale=math.e,
        ),
    ),
)
