"""REFUEL: a dialogue is taken up again at one of its turns, and the two ways it went say which reply was better.

A reply early in a dialogue is to be judged by where the dialogue ends. So one turn is drawn, another reply is given there, and both
dialogues are played on to their ends by the same policy against the same user. The difference of their rewards is what the difference
of the replies' log-ratios is regressed on: no value function, and the states are those that the policy itself gets into. Regressing the
Relative Future: Efficient Policy Optimization for Multi-turn RLHF, arXiv 2410.04612; numbers after the released code
(ZhaolinGao/REFUEL, `setting_one`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np
import torch

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import tagged
from etude.fixtures.attempts import example_attempts
from etude.fixtures.examples import EXAMPLE_TASK
from etude.fixtures.given import GivenContext, given_stage
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, pairs_of
from etude.objective.terms import (
    Objective,
    Term,
    TokenLoss,
    log_ratio,
    objective,
    segment_sum,
    spread,
    sum_per_episode,
)
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.attempts import attempt_tag
from etude.rollout.conversation import Conversation
from etude.rollout.second import heard
from etude.rollout.writers import WRITERS, Address, Longest, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Message, Signal, Task, Verdict
from etude.update import Update

TURN = "turn"  # note: the tag of the turn at which a dialogue was taken up again
GAP = "gap"  # extra: r - r' of the pair
SPEAK = "You are the user in this dialogue with an assistant. Write your next message and nothing else.\n\n{dialogue}"


class Dialogues:
    """Two dialogues that are the same before one turn. The last turn H is drawn from 0 .. `turns` - 1, the turn from 0 .. H. A
    dialogue with the task's feedback ends where an answer is right."""

    def __init__(
        self,
        turns: Annotated[int, Setting("turns of a dialogue, at most", low=1, high=64)] = 5,
        branch: Annotated[
            str,
            Setting(
                "the turn that is replied to twice: drawn, or the last one; off: one whole dialogue",
                choices=("drawn", "last", "off"),
            ),
        ] = "drawn",
        user: Annotated[
            str,
            Setting(
                "who answers the policy: the task's feedback, or a model that plays the user",
                choices=("feedback", *WRITERS),
            ),
        ] = "feedback",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.turns, self.branch = turns, branch
        self.user = None if user == "feedback" else Writer(user, address, longest)
        self.reads = self.user.reads if self.user else frozenset()

    async def __call__(self, task: Task, conversation: Conversation) -> Episode | list[Episode]:
        draws = seeds.generator(conversation.key, "turns").random(2)
        last = self.turns - 1 if self.branch == "off" else int(draws[0] * self.turns)
        before: list[Conversation] = []
        conversation.user(task.prompt)
        await self._play(conversation, 0, last, before)
        if self.branch == "off":
            return conversation.done()
        turn = len(before) - 1 if self.branch == "last" else int(draws[1] * len(before))
        await self._play(before[turn], turn, last)
        return [c.done(**{TURN: attempt_tag(turn + 1)}) for c in (conversation, before[turn])]

    async def _play(
        self, conversation: Conversation, turn: int, last: int, before: list[Conversation] | None = None
    ) -> None:
        """Plays from `turn` to the `last` one; `before` gets a copy from before each reply."""
        while True:
            if before is not None:
                before.append(conversation.fork(turn))
            verdict = await conversation.check(await conversation.reply(attempt_tag(turn + 1)))
            if turn == last or conversation.full or (verdict.correct and self.user is None):
                return
            conversation.user(await self._answered(conversation, verdict))
            turn += 1

    async def _answered(self, conversation: Conversation, verdict: Verdict) -> str:
        if self.user is None:
            return heard(verdict, conversation.task)
        dialogue = "\n\n".join(f"{m.role}: {m.content}" for m in conversation.messages)
        return await self.user.draft(conversation, (Message("user", SPEAK.format(dialogue=dialogue)),))


@writes("policy", extras=(PAIR, GAP))
def relative_future() -> Credit:
    """Of two dialogues the replies at the turn at which they part: advantage +1 and -1, and the extra `GAP` = r - r'. Those that
    go on alike are no pair."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals, number = [], 0
        for group in groups:
            both: dict[int, list[Episode]] = {}
            for episode in group.episodes:
                both.setdefault(episode.index, []).append(episode)
            for number, (one, other) in enumerate((p for p in both.values() if len(p) == 2), 1):
                if not np.array_equal(one.tokens, other.tokens):
                    gap = one.reward - other.reward
                    signals += [_signal(one, 1.0, gap, number), _signal(other, -1.0, gap, number)]
        return signals

    return credit


def _signal(episode: Episode, sign: float, gap: float, number: int) -> Signal:
    on = (tagged(episode, episode.notes[TURN]) & episode.sampled).astype(np.float32)
    blank = np.ones_like(on)
    extras = {PAIR: np.float32(number) * blank, GAP: np.float32(gap) * blank}
    return Signal(episode, np.float32(sign) * on, {"policy": on}, extras)


def regressed(
    gap_scale: Annotated[
        float, Setting("eta: nats by which the log-ratios are to differ for each unit of reward", low=0)
    ] = 1.0,
) -> Objective:
    """(Delta - eta (r - r'))^2, Delta = log pi_theta(y)/pi_t(y) - log pi_theta(y')/pi_t(y') over the tokens of the turn, pi_t the
    policy that sampled them; a mean over pairs."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        active = batch.weight("policy") != 0
        moved = segment_sum(torch.where(active, log_ratio(out, batch), 0.0), batch.episode)
        one, other = pairs_of(batch)
        at = torch.searchsorted(batch.episode, one, right=True) - 1
        each = (moved[one] - moved[other] - gap_scale * batch.extras[GAP][at]) ** 2
        both = torch.zeros_like(moved).index_add(0, torch.cat([one, other]), each.repeat(2))
        return spread(both, batch.episode, active)

    term = Term("regression", loss, sum_per_episode)
    return objective(term, unit="group", extras={PAIR, GAP})


def _pair(first: Sequence[float], second: Sequence[float], turn: int, index: int = 0) -> list[Episode]:
    """Two dialogues with these rewards turn by turn, that part at `turn`; in the second one its last token is another."""
    made = []
    for number, rewards in enumerate((first, second)):
        episode = example_attempts(*rewards)
        *spans, last = episode.spans
        last = replace(last, tokens=last.tokens + number)
        notes = {**episode.notes, TURN: attempt_tag(turn)}
        scored = episode.with_scores({"reward": rewards[-1]})
        made.append(replace(scored, spans=(*spans, last), index=index, notes=notes))
    return made


def credited() -> list[list[float]]:
    """Tokens that are trained, the sum of their advantages, and the gap: of two pairs, then of one that goes on alike."""
    alike = _pair((0.0,), (0.0,), 1, index=2)
    episodes = [*_pair((0.0, 1.0), (0.0, 0.5), 2), *_pair((0.0,), (0.0, 1.0), 1, index=1), alike[0], alike[0]]
    signals = given_stage(RECIPE, "credit")([Group(EXAMPLE_TASK, tuple(episodes))], GivenContext())
    return [
        [float(s.weights["policy"].sum()), float(s.advantage.sum()), float(s.extras[GAP][0])] for s in signals
    ]


D = math.log(2) - math.log(0.5)  # of the rows below: Delta = log 4

RECIPE: Recipe = Recipe(
    name="refuel",
    paper=Paper(
        "Regressing the Relative Future: Efficient Policy Optimization for Multi-turn RLHF",
        "2410.04612",
        2024,
    ),
    published_lr=3e-7,
    idea="A dialogue is played, and from one of its turns a second time. "
    "Which of the two replies at that turn was better is read off where the dialogues end. "
    "How much likelier the one becomes than the other is regressed on that difference, so no value function is needed.",
    equation="L = mean (log pi(y_h)/pi_t(y_h) - log pi(y'_h)/pi_t(y'_h) - eta (r - r'))^2,  H ~ U{0..T-1}, h ~ U{0..H}",
    departures=(
        "pi_t is the policy of the step, whose pairs are used in four passes; the released code makes all pairs of an iteration beforehand",
        "the user is the task's feedback unless rollout.user names a model; a dialogue with feedback ends where an answer is right, and the "
        "turn is then drawn among those that were reached",
        "rewards of the task lie in [0, 1]; eta is 1 where the released code has 1 or 1000 for those of its reward models",
    ),
    stages={
        "rollout": stage(Dialogues),
        "credit": stage(relative_future),
        "objective": stage(regressed),
        "update": stage(Update, passes=4),
    },
    needs=("text",),
    exam={"rollout.branch": "off"},
    claim="Turns that are drawn end with more success within five turns than last turns only.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "the second turn (two tokens), the first (one token); what goes on alike is no pair",
            credited,
            [[2, 2, 0.5], [2, -2, 0.5], [1, 1, -1], [1, -1, -1]],
        ),
        OffPolicy(
            "one reply twice as likely, the other half: Delta = log 4, wanted 0.5 x 3",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={PAIR: (1, 1, 1), GAP: (3.0, 3.0, 3.0)},
            settings={"objective.gap_scale": 0.5},
            loss=(D - 1.5) ** 2,
            gradient=(2 * (D - 1.5), 2 * (D - 1.5), -2 * (D - 1.5)),
        ),
        OffPolicy(
            "two pairs; where the rewards are equal the replies are held together",
            ratio=(2.0, 0.5, 1.0, 1.0),
            advantage=(1.0, -1.0, 1.0, -1.0),
            lengths=(1, 1, 1, 1),
            extras={PAIR: (1, 1, 1, 1), GAP: (0.0, 0.0, -1.0, -1.0)},
            loss=(D**2 + 1) / 2,
            gradient=(D, -D, 1, -1),
        ),
    ),
)
