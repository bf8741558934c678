"""Qwen2.5-Math's pipeline: a reward model learns from answers that were checked, and orders what the checker cannot tell apart.

The checker says right or wrong; a reward model, trained on answers that it has checked, says how good. Reinforcement gets both: every right
answer is worth more than every wrong one, and among equals the reward model decides, so that groups in which all are right still teach
something. Qwen2.5-Math Technical Report: Toward Mathematical Expert Model via Self-Improvement, arXiv 2409.12122."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F

from etude.batch import Batch
from etude.channels import writes
from etude.credit.group import assigned, standardised
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.objective.compared import REWARD
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Episode, Group, Signal

PAPER = Paper(
    "Qwen2.5-Math Technical Report: Toward Mathematical Expert Model via Self-Improvement", "2409.12122", 2024
)
JUDGE = "reward_model"  # the auxiliary model that learns to rate answers
RIGHT, TASK = "right", "task"  # extras: 1 where the answer is right; the number of its task, from 1


# ---- the reward model: right answers of a group above its wrong ones -------------------------------------------------


def checked_answer(episode: Episode, task: int = 1) -> Signal:
    """The answer as the reward model reads it: its number stands at the last token, which ends the reply."""
    row = np.zeros(len(episode.tokens), np.float32)
    last = int(np.flatnonzero(episode.sampled)[-1])
    row[last] = 1.0
    marks = {RIGHT: float(episode.correct), TASK: float(task)}
    extras = {name: np.full(len(row), mark, np.float32) for name, mark in marks.items()}
    return Signal(episode, 0 * row, {REWARD: row}, extras)


@writes(REWARD, extras=(RIGHT, TASK))
def right_above_wrong() -> Credit:
    """All answers to the tasks that were answered rightly and wrongly."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        return [
            checked_answer(e, number)
            for number, g in enumerate(groups, 1)
            if 0 < sum(e.correct for e in g.episodes) < len(g.episodes)
            for e in g.episodes
            if e.sampled.any()
        ]

    return credit


def listwise() -> Objective:
    """-1 / (k (n - k)) sum_{i right, j wrong} log sigmoid(r_i - r_j) of each task with k right answers of n, carried by its answers
    in equal parts; a mean over answers. Metric
    `preferred`: the share of these pairs that are told apart."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        on = batch.weight(REWARD) != 0
        r = out.heads[REWARD][:, 0]
        each, told = torch.zeros_like(r), torch.zeros_like(r)
        task = batch.extras[TASK]
        for number in torch.unique(task[on]).tolist():
            mine = (on & (task == number)).nonzero()[:, 0]
            right = batch.extras[RIGHT][mine] > 0.5
            apart = r[mine[right]][:, None] - r[mine[~right]][None, :]
            if not apart.numel():
                continue
            each = each.index_copy(0, mine, -F.logsigmoid(apart).mean().expand(len(mine)))
            told = told.index_copy(0, mine, (apart > 0).to(r).mean().expand(len(mine)))
        return each, {"preferred": told}

    made = objective(
        Term("listwise", loss, sum_per_episode, weight=REWARD), unit="group", extras={RIGHT, TASK}
    )
    return replace(made, heads={REWARD: 1})


# ---- reinforcement: the checker first, the reward model within ---------------------------------------------------------


def shaped(verdict: Array, rating: Array, alpha: float) -> Array:
    """sigmoid(alpha r_m) + (r_v - 1): in (0, 1) where the answer is right, in (-1, 0) where it is wrong."""
    return 1 / (1 + np.exp(-alpha * rating)) + (verdict - 1)


class Shaped:
    """A = (r - mean r) / std r of a group, r = sigmoid(alpha r_m) + (r_v - 1). The reward model learns from every step's answers once
    they have been rated."""

    def __init__(
        self,
        alpha: Annotated[float, Setting("how steeply the reward model's number counts", low=0)] = 0.5,
        epsilon: Annotated[float, Setting("added to the standard deviation", low=0)] = 1e-4,
    ) -> None:
        self.alpha, self.epsilon = alpha, epsilon
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        kept = [replace(g, episodes=tuple(e for e in g.episodes if e.sampled.any())) for g in groups]
        ratings = iter(self._ratings([e for g in kept for e in g.episodes], context))
        rewards = []
        for group in kept:
            rating = np.array([next(ratings) for _ in group.episodes])
            rewards.append(shaped(group.rewards, rating, self.alpha))
        right = np.array([e.correct for g in kept for e in g.episodes], bool)
        every = np.concatenate(rewards) if rewards else np.zeros(0)
        self.last = {
            name: float(every[m].mean()) for name, m in (("right", right), ("wrong", ~right)) if m.any()
        }
        return assigned(kept, [standardised(r, self.epsilon) for r in rewards])

    def _ratings(self, episodes: Sequence[Episode], context: Context) -> list[float]:
        if not self.alpha:
            return [0.0] * len(episodes)
        cases = [checked_answer(e) for e in episodes]
        model = context.auxiliary[JUDGE].policy
        rows = context.rows(cases, lambda out: out.heads[REWARD][:, 0], policy=model)
        return [float(r[c.weights[REWARD] > 0][0]) for r, c in zip(rows, cases, strict=True)]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        lessons = right_above_wrong()(groups, context)
        if lessons and self.alpha:
            told = context.auxiliary[JUDGE].learn(listwise(), lessons, context.step, context.progress)
            self.last |= {k: float(v) for k, v in (told or {}).items() if k == "preferred"}

    def report(self) -> dict[str, float]:
        """Mean reward of right and of wrong answers of the last step, and the share of pairs of them that the reward model told apart."""
        return dict(self.last)


# ---- numbers -----------------------------------------------------------------------------------------------------------


def _lessons(*rewards: float) -> int:
    group = example_answers(*((r, (5, 6)) for r in rewards))
    signals = given_stage(RM, "credit")([group], GivenContext())
    assert beyond_prompt(signals, REWARD) == [0.0, 1.0] * len(signals)
    return len(signals)


def _advantages(*answers: tuple[float, float], **settings: Any) -> list[float]:
    """Of answers with these verdicts and numbers of the reward model."""
    group = example_answers(*((v, (5,)) for v, _ in answers))
    judge = GivenModel(reward=[[m] for _, m in answers])
    context: Any = GivenContext(auxiliary={JUDGE: judge})
    return beyond_prompt(given_stage(RECIPE, "credit", epsilon=0.0, **settings)([group], context))


def _taught(*rewards: float, **settings: Any) -> int:
    """How many answers the reward model learns from."""
    model = GivenModel()
    context: Any = GivenContext(auxiliary={JUDGE: model})
    group = example_answers(*((r, (5,)) for r in rewards))
    given_stage(RECIPE, "credit", **settings).observe([group], [], context)
    return sum(len(signals) for _, signals in model.lessons)


def _pull(margin: float) -> float:
    return math.log1p(math.exp(-margin))


RM: Recipe = Recipe(
    name="qwen_math_rm",
    paper=PAPER,
    idea="A reward model that learns from the policy's own answers after they were checked. "
    "Within a task every right answer shall be rated above every wrong one, and each task counts alike. "
    "What comes out is a reward (--reward model:RUN).",
    equation="L = - 1 / (k (n - k)) sum_{i right, j wrong} log sigmoid(r_i - r_j)",
    departures=(
        "n is run.group_size, where the paper samples 6; tasks that were always or never solved teach nothing",
        "answers are drawn as the run goes on, from the model whose head learns: nothing trains its language model to answer",
    ),
    confidence="memory",
    stages={"credit": stage(right_above_wrong), "objective": stage(listwise)},
    needs=("text",),
    claim="It tells right answers from wrong ones it has not seen, more often than a model trained on single labels.",
    manipulation=(Manipulated("six pairs in ten are told apart at last", "preferred", 0.6, read="last"),),
    examples=(
        ByHand(
            "one of three right: all; all right or all wrong: none",
            lambda: [_lessons(1, 0, 0), _lessons(1, 1), _lessons(0, 0)],
            [3, 0, 0],
        ),
        OffPolicy(
            "one right (2) above two wrong (1, 0): log(1 + 1/e) and log(1 + 1/e^2), halved",
            ratio=(2.0, 0.5, 1.0),
            advantage=(0.0,) * 3,
            lengths=(1, 1, 1),
            weights={REWARD: (1, 1, 1)},
            extras={RIGHT: (1, 0, 0), TASK: (1, 1, 1)},
            heads={REWARD: (2.0, 1.0, 0.0)},
            loss=(_pull(1.0) + _pull(2.0)) / 2,
            gradient=(0.0, 0.0, 0.0),
        ),
    ),
)

RECIPE: Recipe = Recipe(
    name="qwen_math",
    base=GRPO,
    paper=PAPER,
    published_lr=1e-5,
    idea="The checker decides whether an answer is right, a reward model how good it is among its like. "
    "Their sum never puts a wrong answer above a right one. "
    "The reward model learns from every step's checked answers, so it stays about what the policy says now.",
    equation="r = sigmoid(alpha r_m) + (r_v - 1);  A = (r - mean r) / std r;  L_m = - 1 / (k (n - k)) sum log sigmoid(r_i - r_j);  otherwise as GRPO",
    departures=(
        "the reward model begins as the policy with a new head and learns in the same run; the paper trains one from its fine-tuned model before, and "
        "again after each round of rejection sampling. `qwen_math_rm`, with --reward, has them apart",
        "the rounds of fine-tuning on the best-rated right answers that come before are `raft` and `rest_em`; the filter of prompts that are solved "
        "two to five times of eight is `dynamic_sampling`",
        "no KL to the start (the paper has 0.001)",
    ),
    confidence="memory",
    stages={"credit": stage(Shaped)},
    auxiliary={JUDGE: AuxiliaryModel("copy", lr=1.0, heads={REWARD: 1})},
    needs=("text",),
    claim="Fewer groups are without signal than with verdicts of 0 and 1, and it learns faster; the reward model's number alone is exploited.",
    manipulation=(
        Manipulated("the reward model tells six pairs in ten apart", r"credit\.preferred", 0.6, read="last"),
    ),
    examples=(
        ByHand(
            "right at 0, log 3 / alpha; wrong at 0: 1/2, 3/4, -1/2",
            lambda: shaped(np.array([1.0, 1.0, 0.0]), np.array([0.0, 2 * math.log(3), 0.0]), 0.5).tolist(),
            [0.5, 0.75, -0.5],
        ),
        ByHand(
            "both right, rated 0 and log 3 / alpha: mean 5/8, std 1/8; right and wrong, alike rated; alpha = 0: verdicts alone",
            lambda: [
                *_advantages((1, 0.0), (1, 2 * math.log(3))),
                *_advantages((1, 0.3), (0, 0.3)),
                *_advantages((1, 5.0), (0, -5.0), alpha=0.0),
            ],
            [-1, 1, 1, -1, 1, -1],
        ),
        ByHand(
            "it learns from what was right and wrong",
            lambda: [_taught(1, 0, 0), _taught(1, 1), _taught(1, 0, alpha=0.0)],
            [3, 0, 0],
        ),
        Reduction("alpha = 0: GRPO", "grpo", {"credit.alpha": 0.0}),
    ),
)

RECIPES = [RM, RECIPE]
