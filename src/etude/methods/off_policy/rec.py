"""REC and OPMD: group-relative REINFORCE read as an off-policy method.

Yao et al. (arXiv 2509.24203). Filter: groups of the last twenty steps are replayed. Credit: the reward minus
the group's mean. Objective, `relative` (`etude.objective.masked_ratio`): REINFORCE without importance weight;
REC masks tokens whose ratio has moved too far (PPO's clip, read as a mask), OPMD pulls the log-ratio back to
0 by its square instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import e, log
from types import SimpleNamespace
from typing import Annotated

import numpy as np

from etude.credit.group import Credit, centred, constant
from etude.curriculum.replay import Replay
from etude.fixtures.examples import example_group
from etude.objective.masked_ratio import relative
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Group, Signal


def balanced_mean(
    balance: Annotated[bool, Setting("drop wrong answers at random till right ones are as many")] = False,
) -> Credit:
    """A_i = r_i - mean of the kept."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            rewards, kept = group.rewards, np.arange(len(group.episodes))
            if balance:
                bad = rewards < rewards.mean()
                drawn = context.rng("balance", context.drawn, group.task.key).permutation(kept[bad])
                kept = np.sort(np.concatenate([kept[~bad], drawn[: sum(~bad)]]))
            signals += [
                constant(group.episodes[i], float(a))
                for i, a in zip(kept, centred(rewards[kept]), strict=True)
            ]
        return signals

    return credit


def balanced() -> list[tuple[int, float]]:
    """Which of 0, 1, 0, 0 right are kept, and their advantages, where the permutation turns the order around."""
    turned = SimpleNamespace(permutation=lambda places: places[::-1])
    context = SimpleNamespace(drawn=0, rng=lambda purpose, *parts: turned)
    credit = REC.stages["credit"].but(balance=True).build("credit")
    return [(s.episode.index, float(s.advantage[0])) for s in credit([example_group([0, 1, 0, 0])], context)]


def replayed(first: int, then: int) -> list[Array]:
    """What the recipe's filter trains on at step `then`, when 1,0 came at step `first`, 1,1 now, and the older is drawn."""
    filter = REC.stages["filter"].build("filter")
    drawn = SimpleNamespace(choice=lambda held, n, replace: range(n))
    for step, rewards in ((first, [1.0, 0.0]), (then, [1.0, 1.0])):
        context = SimpleNamespace(step=step, drawn=step, rng=lambda purpose, *parts: drawn)
        groups = filter([example_group(rewards)], context)
    return [group.rewards for group in groups]


REC = Recipe(
    name="rec",
    paper=Paper(
        "Group-Relative REINFORCE Is Secretly an Off-Policy Algorithm: Demystifying Some Myths About GRPO and Its Friends",
        "2509.24203",
        2025,
    ),
    published_lr=1e-6,
    idea="Group-relative REINFORCE is one step on the consistency of rewards and log-ratios within pairs of answers, whatever policy wrote them. "
    "So stale data needs no importance weight; what keeps it stable is the clip, used as a mask. "
    "Groups of the last twenty steps are replayed to show it.",
    equation="L = - token mean of A_i M_t log pi(y_t), A_i = r_i - mean r, M_t = [A>=0, rho<=1+e] or [A<=0, rho>=1-e]",
    departures=(
        "staleness comes from replaying the last 20 steps evenly, where the paper synchronises the sampler every 20 steps",
    ),
    stages={
        "filter": stage(Replay, steps=20),
        "credit": stage(balanced_mean),
        "objective": stage(relative),
    },
    claim="On stale data clipping prevents collapse, and leaving the importance weight out changes little.",
    manipulation=(
        Manipulated("the data are old: 0.01 nats from the policy", "kl_sampler", 0.01),
        Manipulated("a token in a hundred is masked", "clip", 0.01),
    ),
    examples=(
        ByHand("kept for 20 steps", lambda: [replayed(0, 19), replayed(0, 20)], [[[1, 0]], [[1, 1]]]),
        Credited("1 of 4 right", [[1.0, 0, 0, 0]], [[0.75, -0.25, -0.25, -0.25]]),
        ByHand("balanced: one wrong answer (the last) beside the right one", balanced, [(1, 0.5), (3, -0.5)]),
        OffPolicy(
            "praise acts up to 1.2, blame down to 0.8, at full weight; log pi = -1 + log rho",
            ratio=(1.3, 1.1, 0.5, 1.5, 0.9, 0.7),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            loss=(-(log(1.1) - 1) - (log(0.5) - 1) + (log(1.5) - 1) + (log(0.9) - 1)) / 6,
            gradient=(0, -1 / 6, -1 / 6, 1 / 6, 1 / 6, 0),
        ),
        OffPolicy(
            "unequal bounds 0.9 and 1.3, weighed by rho: 1.25 and 0.95 lie within, 1.35 and 0.85 beyond",
            ratio=(1.25, 1.35, 0.95, 0.85),
            advantage=(1.0, 1.0, -1.0, -1.0),
            loss=(-1.25 * (log(1.25) - 1) + 0.95 * (log(0.95) - 1)) / 4,
            gradient=(-1.25 / 4, 0, 0.95 / 4, 0),
            settings={"objective.importance": True, "objective.clip_low": 0.1, "objective.clip_high": 0.3},
        ),
        OffPolicy(
            "two-side: within 0.8 to 1.2 only, whatever the sign",
            ratio=(1.3, 1.1, 0.5, 1.5, 0.9, 0.7),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            loss=(-(log(1.1) - 1) + (log(0.9) - 1)) / 6,
            gradient=(0, -1 / 6, 0, 0, 1 / 6, 0),
            settings={"objective.mask": "two-side"},
        ),
        OffPolicy(
            "ring: and again below 0.4 for praise, above 3 for blame",
            ratio=(0.3, 0.5, 3.5, 3.5, 2.0, 0.3),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            loss=(-(log(0.3) - 1) + (log(3.5) - 1)) / 6,
            gradient=(-1 / 6, 0, 0, 1 / 6, 0, 0),
            settings={"objective.mask": "ring"},
        ),
        OffPolicy(
            "weighed by exp(A / 2)",
            ratio=(1.0, 1.0),
            advantage=(2.0, -2.0),
            loss=(2 * e - 2 / e) / 2,
            gradient=(-e, 1 / e),
            settings={"objective.advantage_temperature": 2.0},
        ),
        Reduction(
            "with importance weights and on-policy: GRPO without std",
            "grpo",
            {"objective.importance": True},
            {"credit.scale": "off", "objective.mean": "token"},
        ),
        Reduction(
            "without a mask, summed and on-policy: REINFORCE",
            "reinforce",
            {"objective.mask": "off", "objective.mean": "sum"},
        ),
    ),
)


OPMD = Recipe(
    name="opmd",
    base=REC,
    paper=REC.paper,
    published_lr=1e-6,
    idea="Instead of a clip, a quadratic pull on the log-ratio keeps the policy near the one that wrote the data. "
    "Its strength is the temperature of the KL-regularised problem that the loss solves.",
    equation="L = - token mean of [A_i log pi(y_t) - tau (log pi(y_t) - log pi_old(y_t))^2]",
    departures=("GUESS: tau (opmd_tau) = 0.1; at 1 the pull holds a small model where it was",),
    stages={"objective": stage(relative, mask="off", opmd_tau=0.1)},
    claim="On stale data the pull prevents the collapse of unclipped REINFORCE.",
    manipulation=(Manipulated("the data are old: 0.01 nats from the policy", "kl_sampler", 0.01),),
    examples=(
        OffPolicy(
            "no mask; the pull 0.1 (log rho)^2 has the gradient 0.2 log rho: down where the ratio rose, up where it fell",
            ratio=(4.0, 0.1, 4.0, 0.1),
            advantage=(1.0, 1.0, -1.0, -1.0),
            loss=0.1 * 2 * (log(4) ** 2 + log(0.1) ** 2) / 4,
            gradient=(
                (-1 + 0.2 * log(4)) / 4,
                (-1 + 0.2 * log(0.1)) / 4,
                (1 + 0.2 * log(4)) / 4,
                (1 + 0.2 * log(0.1)) / 4,
            ),
        ),
        Reduction(
            "tau = 0, summed and on-policy: REINFORCE",
            "reinforce",
            {"objective.opmd_tau": 0.0, "objective.mean": "sum"},
        ),
    ),
)

RECIPES = (REC, OPMD)
