"""Agent-RLVR: what the agent cannot do alone it does with guidance, and then learns to do without.

Da et al. (arXiv 2506.11425). Every task is attempted; where the attempt fails its check, guidance (a hint of the task's and what
the environment said) is given, and it is attempted again. A guided attempt that passes is learnt behind the bare prompt: it is
preferred to one that failed, by DPO, and imitated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.attempts import without_help
from etude.credit.imitate import IMITATION, tagged
from etude.credit.pairs import Margin, Pairs
from etude.fixtures.attempts import credited_signals, example_attempts
from etude.methods.preference.rpo import RECIPE as RPO
from etude.methods.preference.rpo import pessimistic
from etude.objective.preference import PAIR
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import Refine
from etude.settings import stage
from etude.stages import Context, Credit
from etude.types import Array, Episode, Group, Signal

Y1, Y2 = attempt_tag(1), attempt_tag(2)

Tried = tuple[float, Episode, Array]
"""A trajectory: its reward, itself, and bool[T]: what of it is compared."""


def first_alone(episode: Episode) -> Episode:
    """The episode up to where its second attempt begins."""
    last = next((i for i, s in enumerate(episode.spans) if i and s.restart), len(episode.spans))
    return replace(episode, spans=episode.spans[:last])


def trajectories(group: Group) -> list[Tried]:
    """All first attempts, and those with guidance that passed, as if they had had none."""
    found: list[Tried] = []
    for episode in group.episodes:
        alone = first_alone(episode)
        found.append((episode.verdicts[0].reward, alone, tagged(alone, Y1)))
    for episode in group.episodes:
        unguided = without_help(episode, Y2)
        if unguided is not None and episode.correct and not episode.verdicts[0].correct:
            found.append((episode.reward, unguided, tagged(unguided, Y2)))
    return found


@writes("policy", IMITATION, extras=(PAIR,))
def passed_over_failed(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """Up to `pairs` times a better and a worse trajectory of each task, ties broken by a keyed draw; the better one is imitated too."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return [s for g in groups for s in _pairs(g, context)]

    def _pairs(group: Group, context: Context) -> list[Signal]:
        tried = trajectories(group)
        rewards = np.array([reward for reward, _, _ in tried])
        draw = seeds.generator(context.seed, "pairs", context.step, group.task.key).random(len(tried))
        order, signals = np.lexsort((draw, rewards)), []
        for number in range(min(pairs, len(order) // 2)):
            worst, best = order[number], order[-1 - number]
            if rewards[best] - rewards[worst] < margin:
                break
            signals += [_side(tried[best], 1.0, number + 1), _side(tried[worst], -1.0, number + 1)]
        return signals

    return credit


def _side(tried: Tried, sign: float, number: int) -> Signal:
    _, episode, where = tried
    on = where.astype(np.float32)
    weights = {"policy": on, IMITATION: on * (sign > 0)}
    return Signal(episode, np.float32(sign) * on, weights, {PAIR: np.full(len(on), number, np.float32)})


def compared(*episodes: Episode) -> list[list[float]]:
    """Of each signal: its tokens, those that are compared, their advantage, and whether it is imitated."""
    signals = credited_signals(RECIPE, episodes)
    return [
        [
            float(len(s.advantage)),
            float((s.weights["policy"] != 0).sum()),
            float(s.advantage[-1]),
            float(s.weights[IMITATION].max()),
        ]
        for s in signals
    ]


W = 1 / (1 + 24**0.1)  # DPO's row: sigmoid(-beta margin)

RECIPE: Recipe = Recipe(
    name="agent_rlvr",
    base=RPO,
    paper=Paper(
        "Agent-RLVR: Training Software Engineering Agents via Guidance and Environment Rewards",
        "2506.11425",
        2025,
    ),
    idea="In a hard environment an agent almost never succeeds, so there is nothing to learn from. "
    "After a failure it is guided, as a teacher would, by a hint and by what the environment said, and tries again. "
    "What succeeds then is learnt as if there had been no guidance, against what failed.",
    equation="L = - mean log sigmoid(beta [d(y+) - d(y-)]) - mean_t log pi(y+_t | x),  d = log pi(y|x) / ref(y|x),  y+ passes, guided or not",
    departures=(
        "guidance is a hint of the task's and the check's feedback; the paper has a teacher model write it from the reference solution",
        "the paper's update is not known in detail: DPO over pairs, with the better trajectory imitated in the same step; the paper "
        "imitates first",
        "guidance is taken out of the context that is trained; whether the paper does so is not known",
        "one failed attempt is guided once; no reward model is trained for the choice among answers at test time",
    ),
    confidence="guess",
    stages={
        "rollout": stage(Refine, critic="feedback", hint=1),
        "reward": stage(each_attempt),
        "credit": stage(passed_over_failed),
        "objective": stage(pessimistic, pessimism=10.0, mean="token"),
    },
    exam={"rollout.second": 0.0},
    claim="Where hardly an unguided attempt succeeds, more of them do after training than without guidance.",
    manipulation=(Manipulated("one episode in twenty succeeds with guidance", "attempts/wrong_right", 0.05),),
    examples=(
        ByHand(
            "one passes alone (prompt 2, answer 1), one fails (the same): both are compared, the better one is imitated",
            lambda: compared(example_attempts(1.0), example_attempts(0.0)),
            [[3, 1, 1, 1], [3, 1, -1, 0]],
        ),
        ByHand(
            "one that fails and passes with guidance: 2 tokens behind the bare prompt of 1, over its own first attempt",
            lambda: compared(example_attempts(0.0, 1.0)),
            [[3, 2, 1, 1], [3, 1, -1, 0]],
        ),
        ByHand(
            "guidance does not help: nothing to compare",
            lambda: len(compared(example_attempts(0.0, 0.0))),
            0.0,
        ),
        ByHand(
            "all pass: nothing to compare",
            lambda: len(compared(example_attempts(1.0), example_attempts(1.0))),
            0.0,
        ),
        OffPolicy(
            "DPO's row of margin log 24, and the mean negative log-likelihood of y+, (2 - log 2) / 2",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), IMITATION: (1, 1, 0)},
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            loss=-math.log(1 - W) + (2 - math.log(2)) / 2,
            gradient=(-0.1 * W - 0.5, -0.1 * W - 0.5, 0.1 * W),
        ),
        Reduction(
            "nothing is guided: RPO with this weight",
            "rpo",
            {"rollout.second": 0.0},
            {"objective.pessimism": 10.0, "objective.mean": "token"},
        ),
    ),
)
