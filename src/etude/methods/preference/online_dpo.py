"""Online DPO: two fresh answers, one comparison, one step of DPO.

DPO on a fixed file compares answers that the policy no longer gives. Here every pair is sampled from the policy of that step and
labelled by whatever the reward is: a checker, a reward model or a judge (`--reward`). Direct Language Model Alignment from
Online AI Feedback, arXiv 2402.04792."""

from etude.fixtures.attempts import credited_signals, example_attempts
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.recipe import ByHand, Paper, Recipe
from etude.rollout.group_rollout import independent
from etude.settings import stage
from etude.types import Signal


def _pairs() -> list[Signal]:
    return credited_signals(RECIPE, *([example_attempts(r) for r in rs] for rs in ((0.2, 0.7), (0.5, 0.5))))


RECIPE: Recipe = Recipe(
    name="online_dpo",
    base=DPO,
    paper=Paper("Direct Language Model Alignment from Online AI Feedback", "2402.04792", 2024),
    published_lr=5e-7,
    idea="The policy answers twice; a reward says which answer is better, and DPO learns from the pair at once. "
    "Comparisons are therefore always about what the policy says now. Answers that a task brings along are not used.",
    equation="y1, y2 ~ pi_t;  L = - mean log sigmoid(beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)])",
    departures=(
        "the label is the order of two rewards; a judge that compares directly is a reward as well (docs/rewards.md)",
        "two answers of equal reward are no pair",
    ),
    stages={"group_rollout": stage(independent)},
    defaults={"group_size": 2},
    claim="From the same number of labelled pairs, pairs sampled anew reach a higher reward than pairs of the starting policy.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand(
            "of rewards 0.2 and 0.7 a pair, better answer first; of equal ones none",
            lambda: [[s.episode.reward, s.advantage[-1]] for s in _pairs()],
            [[0.7, 1], [0.2, -1]],
        ),
    ),
)
