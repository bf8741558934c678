"""DPO, on pairs of a file or on pairs made from the model's own groups.

Of a pair (y+, y-), the implicit reward beta log(pi / pi_ref) of the better answer is raised above that of the worse. A task
may bring its pair (`--pairs FILE`); of any other task the best and the worst answer of a group are one. Direct Preference
Optimization, arXiv 2305.18290."""

import math

from etude.credit.pairs import preference_pairs
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.objective.preference import PAIR, dpo_loss
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.attempts import attempt_tag
from etude.rollout.pairs import pairs_or_attempts
from etude.settings import stage
from etude.types import Signal


def _pairs(**settings: float) -> list[Signal]:
    """Credit of one group with the rewards 0.1, 0.9, 0.5, 0.3, and of one in which all are equal."""
    groups = [[example_attempts(r) for r in rewards] for rewards in ((0.1, 0.9, 0.5, 0.3), (0.5, 0.5))]
    return credited_signals(RECIPE, *groups, settings={f"credit.{k}": v for k, v in settings.items()})


MARGIN = math.log(6) - math.log(1 / 4)  # of the row below: 24 = 6 / (1/4)
W = 1 / (1 + 24**0.1)  # sigmoid(-beta margin)
W5 = 1 / (1 + 24**0.5)


PREFERRED = Manipulated(
    "the better answer of six pairs in ten is preferred at last", "preferred", 0.6, read="last"
)
"""What must be seen of whatever learns to prefer, before a claim about it is judged."""

RECIPE = Recipe(
    name="dpo",
    paper=Paper(
        "Direct Preference Optimization: Your Language Model is Secretly a Reward Model", "2305.18290", 2023
    ),
    published_lr=1e-6,
    idea="Two answers form a pair: those of a file, or the best and the worst of a group. "
    "The policy learns to prefer the better one, relative to where it started. No reward scale matters, only order.",
    equation="L = - mean log sigmoid(beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)])",
    departures=(
        "where the tasks bring no pairs, they are sampled anew from the current policy at every step, as in online DPO (arXiv 2402.04792)",
    ),
    stages={
        "group_rollout": stage(pairs_or_attempts),
        "credit": stage(preference_pairs),
        "objective": stage(dpo_loss),
    },
    manipulation=(PREFERRED,),
    examples=(
        ByHand(
            "two pairs: best and worst, then the two between",
            lambda: [[s.episode.reward, s.advantage[-1], s.extras[PAIR][0]] for s in _pairs(pairs=2)],
            [[0.9, 1, 1], [0.1, -1, 1], [0.5, 1, 2], [0.3, -1, 2]],
        ),
        ByHand("one by default", lambda: advantages_of(_pairs(), attempt_tag(1)), [1, -1]),
        ByHand(
            "no pair closer than the margin: 0.8 and 0.2",
            lambda: [len(_pairs(pairs=2, margin=m)) for m in (0.15, 0.25, 0.85)],
            [4, 2, 0],
        ),
        OffPolicy(
            "y+ twice as likely as when sampled, its second token 3 times as likely as at the start: d = log 2 + log 3; "
            "y- half as likely as when sampled, where the start was twice: d = -log 4; beta 0.1",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1), PAIR: (1, 1, 1)},
            loss=math.log1p(math.exp(-0.1 * MARGIN)),
            gradient=(-0.1 * W, -0.1 * W, 0.1 * W),
        ),
        OffPolicy(
            "the same at beta 0.5, beside a pair without preference (log 2; gradient beta / 2): mean over the two pairs",
            ratio=(2.0, 1.0, 0.5, 1.0, 1.0),
            advantage=(1.0, 1.0, -1.0, 1.0, -1.0),
            lengths=(2, 1, 1, 1),
            extras={"reference": (-1.0, -1 - math.log(3), math.log(2) - 1, -1, -1), PAIR: (1,) * 5},
            settings={"objective.dpo_beta": 0.5},
            loss=(math.log1p(math.exp(-0.5 * MARGIN)) + math.log(2)) / 2,
            gradient=(-0.5 * W5 / 2, -0.5 * W5 / 2, 0.5 * W5 / 2, -0.5 * 0.5 / 2, 0.5 * 0.5 / 2),
        ),
    ),
)
