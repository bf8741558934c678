"""PIT: learning to improve an answer from preferences alone, without a word on what is better.

Reinforcement from human feedback asks how good an answer is. Here the policy is shown an answer, and what counts is by how much
its own is better: a reward of two answers, learnt from the same preferences. The answers shown come with the tasks first, then
from the policy as the run began, which are harder to improve. Enabling Language Models to Implicitly Learn Self-Improvement,
arXiv 2310.00898."""

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
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.kl_penalty import KLPrice, drift
from etude.credit.pairs import Margin, Pairs, answer_of, given_pairs, sampled_pairs
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_loss,
    given_stage,
)
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.methods.sampling_and_curricula.exit import IMPROVE, QUALITY
from etude.models.outputs import Outputs
from etude.objective.compared import REWARD
from etude.objective.preference import PAIR, pair_loss
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import attempt
from etude.rollout.basic import single
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.pairs import given, pairs_or_attempts
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward, Rollout
from etude.tasks.check import judged
from etude.types import Episode, Group, Message, Signal, Span, Task

PAPER = Paper("Enabling Language Models to Implicitly Learn Self-Improvement", "2310.00898", 2023)

Request = Annotated[str, Setting("how an improvement is asked for")]


def improving(prompt: Sequence[Message], shown: str, request: str) -> tuple[Message, ...]:
    """The prompt, an answer, and the request for a better one."""
    return (*prompt, Message("assistant", shown), Message("user", request))


# ---- the gap model: r(x, a, b), by how much a improves on b, read at the end of a behind [x, b, request] --------------

WL, WW, LL, LW = range(
    4
)  # (a, b): the better answer behind the worse one, each behind itself, the worse behind the better
ORDERS = ((WL, LW), (WL, WW), (WL, LL), (WW, LW), (LL, LW))
CORNER = "corner"
"""Extra: which of the four (a, b) a sequence is."""


@writes(REWARD, extras=(PAIR, CORNER))
def four_corners(pairs: Pairs = 1, margin: Margin = 1e-6, improve_request: Request = IMPROVE) -> Credit:
    """Of every pair, given with the tasks or made of a group's best and worst attempts, either answer behind either."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            compared = given_pairs(group) or sampled_pairs(group, context, pairs, margin)
            for better, worse in zip(compared[0::2], compared[1::2], strict=False):
                w, l = better.episode, worse.episode  # noqa: E741 (the paper's letters)
                for corner, (a, b) in zip((WL, WW, LL, LW), ((w, l), (w, w), (l, l), (l, w)), strict=True):
                    signals.append(behind(a, b, context, improve_request, better.extras[PAIR][0], corner))
        return signals

    return credit


def behind(a: Episode, b: Episode, context: Context, request: str, pair: float, corner: int) -> Signal:
    """Answer `a` after a prompt that shows `b`; the weight is 1 on its last token."""
    prompt = a.task.prompt
    before = context.policy.renderer.prompt(improving(prompt, b.text, request), len(prompt))
    spans = (Span("user", before), Span("assistant", a.tokens[answer_of(a)]))
    row = np.zeros(sum(map(len, spans)), np.float32)
    row[-1] = 1
    extras = {PAIR: np.full(len(row), pair, np.float32), CORNER: np.full(len(row), corner, np.float32)}
    return Signal(replace(a, spans=spans), 0 * row, {REWARD: row}, extras)


def five_orders() -> Objective:
    """- sum log sigmoid(r_i - r_j) over the five `ORDERS` r(wl) >= r(ww), r(ll) >= r(lw); mean over pairs."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        ends = (batch.weight(REWARD) != 0).nonzero()[:, 0]
        pair = batch.group[ends] * 1000 + batch.extras[PAIR][ends].long()
        ends = ends[(4 * pair + batch.extras[CORNER][ends].long()).argsort()]
        r = out.heads[REWARD][ends, 0].reshape(-1, 4)
        each = torch.stack([pair_loss(r[:, i] - r[:, j], 1.0) for i, j in ORDERS]).sum(0)
        nothing = torch.zeros_like(out.heads[REWARD][:, 0])
        better = (r[:, WL] > r[:, LW]).to(each)
        return (
            nothing.index_add(0, ends, each.repeat_interleave(4)),
            {"preferred": nothing.detach().index_add(0, ends, better.repeat_interleave(4))},
        )

    term = Term("orders", loss, sum_per_episode, weight=REWARD)
    return replace(objective(term, unit="group", extras={PAIR, CORNER}), heads={REWARD: 1})


# ---- the policy: max E r(x, y, y_ref) - beta KL(pi(. | x, y_ref) || pi_start(. | x, y_ref)) ---------------------------


class Referenced:
    """Attempts at improving one answer, which all of a group are shown. Until `own_from` of the run it comes with the task (one
    of its pair, or its solution), then the start writes it; where the task brings none, it always does. The group's task holds
    it: prompt, answer, request, and in `meta` what the checker gave it (`QUALITY`)."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        referenced: Annotated[bool, Setting("show an answer; else plain attempts")] = True,
        own_from: Annotated[
            float, Setting("share of the run after which the start's answers are shown", low=0, high=1)
        ] = 0.5,
        improve_request: Request = IMPROVE,
    ) -> None:
        self.referenced, self.own_from, self.request = referenced, own_from, improve_request

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if self.referenced:
            (shown,) = await self._shown(rollouts)
            if shown.failure:
                return [shown]
            task = rollouts.task
            meta = {**task.meta, "parent": task.key, QUALITY: shown.reward}
            rollouts.task = replace(task, prompt=improving(task.prompt, shown.text, self.request), meta=meta)
        return await rollouts.plays(range(rollouts.samples))

    async def _shown(self, rollouts: GroupRollout) -> list[Episode]:
        """The answer that is shown, judged as an attempt is."""
        task = rollouts.task
        brought = list(given(task).values()) or [t for t in (task.reference or task.answer,) if t]
        if rollouts.progress >= self.own_from or not brought:
            start = replace(rollouts, generator=rollouts.generators["reference"])
            return await start.play(DEMONSTRATION + 1, single())
        text = brought[int(seeds.generator(rollouts.key, "shown").integers(len(brought)))]

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            conversation.user(task.prompt)
            conversation.inject(text, "shown")
            if judged(task):
                await conversation.check(text)
            return conversation.done()

        return await rollouts.play(DEMONSTRATION + 1, rollout)


def answer_then_improve(
    improvements: Annotated[int, Setting("improvements of its own answer, as it is examined", low=0)] = 1,
    improve_request: Request = IMPROVE,
) -> Rollout:
    """A task that shows an answer: one attempt. Any other: an attempt, and that many requests to improve it, in one
    conversation."""
    alone = single()

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        if QUALITY in task.meta or not judged(task):
            found = await alone(task, conversation)
            assert isinstance(found, Episode)
            return found
        said: Sequence[Message] = task.prompt
        for number in range(1, improvements + 2):
            await attempt(conversation, said, number)
            said = (Message("user", improve_request),)
        return conversation.done()

    return rollout


def gap() -> Reward:
    """r(x, y, y_ref) = q(y) - q(y_ref), q what the checker gives; q(y) where no answer was shown, and 0 where nothing is
    checked (then a gap model is the reward: --reward model:RUN of `pit_reward`)."""

    def reward(episode: Episode) -> dict[str, float]:
        quality = episode.verdict.reward if episode.verdict else 0.0
        return {"reward": quality - episode.task.meta.get(QUALITY, 0.0), QUALITY: quality}

    return reward


@writes("policy", extras=("returns", "values"))
def near_the_start(kl_weight: KLPrice = 0.05, gamma: Gamma = 1.0, lam: Lambda = 0.95) -> Credit:
    """GAE of r_t = [t = T] r - beta (log pi_old - log pi_start)(y_t), all behind [x, y_ref]."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        away = drift(episodes, context)
        rewards = [terminal(e, e.reward) - kl_weight * d for e, d in zip(episodes, away, strict=True)]
        return token_gae(episodes, rewards, context, gamma, lam)

    return credit


# ---- the recipes -----------------------------------------------------------------------------------------------------


def _corners() -> list[list[float]]:
    """Of a better answer 5 and a worse 6 7, in the order of the corners: tokens behind a prompt of one, weight, pair."""
    made = example_answers((1.0, (5,)), (0.0, (6, 7)))
    signals = given_stage(GAP, "credit")([made], GivenContext())
    return [
        [*s.episode.tokens[1:].tolist(), float(s.weights[REWARD].sum()), float(s.extras[CORNER][-1])]
        for s in signals
    ]


def _two_pairs() -> list[Signal]:
    """Credit of answers 5, 6, 7 and 8, of which the first two are right, in two pairs."""
    made = example_answers((1.0, (5,)), (1.0, (6,)), (0.0, (7,)), (0.0, (8,)))
    signals: list[Signal] = given_stage(GAP, "credit", pairs=2)([made], GivenContext())
    return signals


def _loss() -> float:
    """The loss of two pairs, whose corners lie in the reverse order: the first has the numbers `R`, the second zeros."""
    signals = _two_pairs()[::-1]
    ends = [(int(s.extras[CORNER][-1]), int(s.extras[PAIR][-1])) for s in signals]
    model = GivenModel(reward=[[R[corner] if pair == 1 else 0.0] for corner, pair in ends])
    return example_loss(given_stage(GAP, "objective"), signals, model)


def _gaps() -> list[float]:
    """Rewards of a right answer where none was shown, a wrong one, a right one; and of a wrong one after a right one."""
    found = []
    for quality, reward in ((None, 1.0), (0.0, 1.0), (1.0, 1.0), (1.0, 0.0)):
        made = example_episode(reward)
        meta = {} if quality is None else {QUALITY: quality}
        found.append(built(IMPROVER, "reward")(replace(made, task=replace(made.task, meta=meta)))["reward"])
    return found


def _returns() -> list[float]:
    """Returns of an answer of two tokens with reward 1, V = 0, of which the start finds the second less likely by 2 nats."""
    context = GivenContext(GivenModel(value=0.0), {"reference": GivenModel(logp=[-1.0, -3.0])})
    credit = given_stage(IMPROVER, "credit", kl_weight=0.1, lam=1.0)
    (signal,) = credit([example_answers((1.0, (5, 6)))], context)
    return beyond_prompt([signal], "returns")


R = (2.0, 0.5, 0.0, -1.0)  # what the head says of wl, ww, ll, lw
LOSS = sum(math.log1p(math.exp(-d)) for d in (3.0, 1.5, 2.0, 1.5, 1.0))

GAP: Recipe = Recipe(
    name="pit_reward",
    paper=PAPER,
    idea="A reward of two answers: by how much the one improves on the other. From a preferred pair the model learns that the better "
    "behind the worse is the largest gain, the worse behind the better the smallest, and nothing is won by repeating.",
    equation="L = - sum log sigmoid(r_i - r_j) over (wl, lw), (wl, ww), (wl, ll), (ww, lw), (ll, lw);  r_ab = r(x, a, b)",
    departures=(
        "which comparisons enter the loss is told from memory",
        "the answer that is improved on stands as a turn of the assistant's, before a short request; the head reads the last token",
        "where the tasks bring no pairs, the best and the worst attempt of a group are one, by the tasks' own verdicts",
    ),
    confidence="memory",
    stages={
        "group_rollout": stage(pairs_or_attempts),
        "credit": stage(four_corners),
        "objective": stage(five_orders),
    },
    claim="Of held-out pairs the better answer behind the worse has a larger number than the reverse.",
    manipulation=(Manipulated("six pairs in ten are told apart at last", "preferred", 0.6, read="last"),),
    examples=(
        ByHand("5 and 6 7: wl, ww, ll, lw", lambda: [row[-1] for row in _corners()], [0, 1, 2, 3]),
        ByHand(
            "two pairs: a right answer twice, then a wrong one twice, of each",
            lambda: [[s.episode.tokens[-1] < 7, s.extras[PAIR][-1]] for s in _two_pairs()],
            [[1, 1], [1, 1], [0, 1], [0, 1], [1, 2], [1, 2], [0, 2], [0, 2]],
        ),
        ByHand(
            "the answers, each with the weight of one token",
            lambda: [row[:-1] for i, row in enumerate(_corners()) if i in (0, 1)],
            [[5, 1], [5, 1]],
        ),
        ByHand("of two pairs, the second undecided five times", _loss, (LOSS + 5 * math.log(2)) / 2),
        OffPolicy(
            "numbers 2, 1/2, 0, -1: differences 3, 3/2, 2, 3/2, 1",
            ratio=(2.0, 0.5, 1.0, 1.0),
            advantage=(0.0,) * 4,
            lengths=(1, 1, 1, 1),
            weights={REWARD: (1.0,) * 4},
            extras={PAIR: (1,) * 4, CORNER: (0, 1, 2, 3)},
            heads={REWARD: R},
            loss=LOSS,
            gradient=(0.0,) * 4,
        ),
    ),
)

IMPROVER: Recipe = Recipe(
    name="pit",
    base=PPO,
    paper=PAPER,
    idea="The policy is shown an answer and asked for a better one, and is paid by how much better it is. Nobody says what better means: "
    "the reward does. The answers shown are the task's own at first, then those of the policy as the run began.",
    equation="max E[r(x, y, y_ref) - beta KL(pi(. | x, y_ref) || pi_start(. | x, y_ref))], y_ref from the data, then y_ref ~ pi_start(. | x)",
    departures=(
        "without a gap model (--reward model:RUN of `pit_reward`) the gap is that of the checker's verdicts",
        "one answer is shown to all attempts of a group, and is drawn anew each time",
        "the paper first imitates the better answer behind the worse; `reference_correction` does that with own answers, as a run of its own",
        "GUESS: half of the run with given answers, a KL price of 0.05, one short request to improve",
    ),
    confidence="memory",
    stages={
        "group_rollout": stage(Referenced),
        "rollout": stage(answer_then_improve),
        "reward": stage(gap),
        "credit": stage(near_the_start),
    },
    auxiliary={"reference": AuxiliaryModel("start")},
    needs=("text",),
    claim="One improvement raises accuracy over the first answer, and less where the start's answers were never shown.",
    manipulation=(Manipulated("the learned value moves by 0.05", "value", 0.05, read="range"),),
    examples=(
        ByHand("nothing shown; wrong then right; right then right; right then wrong", _gaps, [1, 1, 0, -1]),
        ByHand("1 at the end, less a tenth of two nats", _returns, [0.8, 0.8]),
        Reduction(
            "no answer is shown, no price: PPO",
            "ppo",
            {"group_rollout.referenced": False, "credit.kl_weight": 0.0, "rollout.improvements": 0},
        ),
    ),
)

RECIPES = [GAP, IMPROVER]
