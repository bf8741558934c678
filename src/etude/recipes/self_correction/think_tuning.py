"""ThinkTuning: a teacher's remark, written into the student's own answer, is learnt with it."""

import torch

from etude.credit.attempts import both_voices
from etude.objective.attempts import clipped_and_taught, taught
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.guided import Guided, share_at
from etude.settings import stage


def _gradient(p: float, advantage: float, slack: float) -> float:
    """Of A times the teacher's term by log pi, at probability p."""
    logp = torch.tensor(p, dtype=torch.float64).log().requires_grad_()
    term = advantage * taught(logp.exp(), torch.tensor(advantage), slack, 0.01)
    return float(torch.autograd.grad(term, logp)[0])


RECIPE = Recipe(
    name="think_tuning",
    family="self_correction",
    n=105,
    paper=Paper("ThinkTuning: Instilling Cognitive Reflections without Distillation", "2508.07616", 2025),
    idea="To a few answers a teacher no bigger than the student adds, in the student's voice, whether they are right and why, and leads on. "
    "The whole is judged and reinforced like any other answer, the teacher's words included. "
    "The teacher withdraws in the first third of the run; what stays is the habit of reflecting.",
    equation="student: PPO's clip with GRPO's A;  teacher: - A pi / (sg[pi] + g), or - A pi / sg[pi] where A < 0 and pi < 0.01",
    departures=(
        "g is the constant -0.001 that the released code comes to (its clamp has its bounds the wrong way round)",
        "the denominator is kept at 0.001 or more",
        "the teacher is shown one of four styles as an instruction, not as few-shot examples",
        "GUESS: nothing is sampled after the teacher's words (--set gather.goes_on=true lets the student write on)",
        "the attempts' own rollout is a single answer: guided ones do not follow a replaced rollout stage",
    ),
    stages={"gather": stage(Guided), "credit": stage(both_voices), "objective": stage(clipped_and_taught)},
    needs=("text",),
    claim="More reflective phrases and higher accuracy than GRPO, from a base that never reflects.",
    examples=(
        ByHand(
            "from 0.1 to 0.01 over a third, cut at 0.05",
            lambda: [share_at(p, 0.1, 0.01, 1 / 3, 0.05) for p in (0, 1 / 6, 0.2, 0.5)],
            [0.1, 0.055, 0, 0],
        ),
        ByHand(
            "g = 0: the gradient is A, whatever the probability",
            lambda: [_gradient(p, 2.0, 0.0) for p in (0.3, 0.9)],
            [2, 2],
        ),
        ByHand("g = -0.001 at probability 0.5", lambda: _gradient(0.5, 1.0, -0.001), 0.5 / 0.499),
        ByHand("blame of a rare token", lambda: _gradient(0.005, -1.0, -0.001), -1),
        Reduction("nobody is guided: GRPO", "grpo", {"gather.begin": 0.0}, {"objective.mean": "token"}),
    ),
)
