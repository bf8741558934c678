"""UFO: "try again" is all that a wrong answer hears, and later success is worth less."""

from etude.credit.baseline import value_baseline
from etude.credit.example import group
from etude.curriculum.gate import most_varied
from etude.objective.policy import clipped_with_value
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.ppo import RECIPE as PPO
from etude.reward.attempts import decayed, repeated, turn_decay
from etude.rollout.basic import retry
from etude.settings import stage

RECIPE = Recipe(
    name="ufo",
    base=PPO,
    family="self_correction",
    n=277,
    paper=Paper('A Simple "Try Again" Can Elicit Multi-Turn LLM Reasoning', "2507.14295", 2025),
    idea="The model answers until it is right or out of turns, and hears nothing but that it was wrong. "
    "Success counts half as much with every turn that it came later, and repeating an answer is punished. "
    "A model trained on single turns repeats itself; this one learns to try something else.",
    equation="r = gamma^t 1[right at turn t] - lambda (1 - E/N) - 0.1 1[no answer found];  PPO with GAE(1, 1) over all replies",
    departures=(
        "the KL of the released settings (0.001) is off, so that no reference model is kept",
        "the punishment of a malformed answer looks at the last reply only",
    ),
    stages={
        "rollout": stage(retry, attempts=5, told="Incorrect. Please think again.", repeat=True),
        "reward": stage(turn_decay),
        "select": stage(most_varied),
        "credit": stage(value_baseline, lam=1.0),
        "objective": stage(clipped_with_value, high=0.28),
    },
    claim="Trained on single turns a model repeats its wrong answer; this one raises success within five turns and the share "
    "of different answers, at equal accuracy of the first.",
    examples=(
        ByHand(
            "right at once, at the second, at the third turn",
            lambda: [decayed(t, 0.5) for t in range(3)],
            [1, 0.5, 0.25],
        ),
        ByHand(
            "three answers, two of them alike, one not found", lambda: repeated(["4", "5", "4", None]), 1 / 3
        ),
        ByHand(
            "a quarter of four groups: the one with the widest spread",
            lambda: most_varied(0.25)([group([r, 1 - r]) for r in (0.5, 1, 0.6, 0.4)], None)[0].rewards,
            [1, 0],
        ),
        Reduction(
            "one turn, nothing punished, every group: PPO",
            "ppo",
            {"rollout.attempts": 1, "reward.malformed": 0.0, "select.share": 1.0, "objective.high": 0.2},
            {"credit.lam": 1.0},
        ),
    ),
)
