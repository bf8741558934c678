"""SwS: a first phase finds out what the policy does not learn, a second one gets new tasks for it."""

from etude.curriculum.band import within
from etude.curriculum.weakness import Weakness, failure_ratios, is_weak, slope
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.recipes.base.grpo import RECIPE as GRPO
from etude.rollout.written import Written
from etude.settings import stage
from etude.tasks.check import Exact
from etude.tasks.posed import by_majority
from etude.types import Message, Task

PAPER = Paper(
    "SwS: Self-aware Weakness-driven Problem Synthesis in Reinforcement Learning for LLM Reasoning",
    "2506.08989",
    2025,
)

DEPARTURES = (
    "accuracy is logged for a kind and level, and over parts of the first phase, since a generator's problems never repeat",
    "a finite source has no new problems: its weak ones come more often",
    "GUESS: phase 2 is the second half of the budget, half of whose tasks are new; it continues from phase 1's policy",
    "select.begin and curriculum.first name the same moment and are set together",
    "alone it is trained as GRPO; `gspo+sws` and the like take credit and loss from the other, which must leave select alone",
)

STAGES = {"curriculum": stage(Weakness), "select": stage(within, low=0.125, high=0.875, begin=0.5)}


def _agreed(answers: str) -> bool:
    task = by_majority(Task((Message("user", "3+4"),), Exact("7")), "2+5", answers, 4)
    return task is not None and task.answer == "7"


SWS = Recipe(
    name="sws",
    family="curriculum",
    n=294,
    paper=PAPER,
    idea="What a policy fails at and does not get better at is where it is weak. A first phase of training finds these places. "
    "In a second phase part of the tasks are new problems of just these places, each kind getting as many as its share of "
    "failures, and problems that are too hard or too easy are drawn anew.",
    equation="weak(u) = max_t a_ut <= 1/2 and slope_t a_ut <= 0;  P(kind c) ~ |weak in c| / |c|;  phase 2 keeps 1/8 <= a <= 7/8",
    departures=(
        "problems are written by the task source at the weak kind and level, where the paper has a language model write them from "
        "concepts; their answers are computed, so neither judges nor a majority of a solver's answers are needed",
        *DEPARTURES,
    ),
    stages=STAGES,
    alone=GRPO,
    claim="A second phase weighted by failure raises the accuracy of weak kinds more than one of the same length that is not.",
    examples=(
        ByHand(
            "slopes of rising, falling and single values",
            lambda: [slope([0.1, 0.2, 0.3]), slope([1, 0]), slope([0.4])],
            [0.1, -1, 0],
        ),
        ByHand(
            "low and falling; low and rising; low but once above a half",
            lambda: [is_weak([0.3, 0.2]), is_weak([0.2, 0.3]), is_weak([0.6, 0.1])],
            [1, 0, 0],
        ),
        ByHand(
            "one of two levels weak, one of one, none",
            lambda: list(
                failure_ratios({("a", 0): True, ("a", 1): False, ("b", 0): True, ("c", 0): False}).values()
            ),
            [0.5, 1],
        ),
        Reduction("before anything is found to be weak: GRPO", "grpo"),
    ),
)

WRITTEN = Recipe(
    name="sws_written",
    family="curriculum",
    n=294,
    paper=PAPER,
    idea="SwS with problems that a model writes: it is shown one of the kind that the policy fails at and writes another. "
    "The answer is computed where the problem can be run, else it is what most of several answers agree on. "
    "What cannot be read as a problem is dropped.",
    equation="x' ~ pi(. | x, 'another of this kind') for weak x;  gold(x') = run(x'), else the mode of 8 answers if it has at least 4",
    departures=(
        "the policy writes and votes by default, --set gather.writer=teacher asks run.teacher; the paper has stronger models for both",
        "one problem of the weak kind is shown, where the paper draws five concepts that occur together; no judge rates what was written",
        "problems of the lab, programs and written arithmetic (with the example's expression replaced) are run; others are voted on where the "
        "checker compares an answer; of the rest, and where nothing usable was written, the source's own problem is taken",
        *DEPARTURES,
    ),
    stages={**STAGES, "gather": stage(Written)},
    alone=GRPO,
    needs=("text",),
    claim="Problems that are written where the policy is weak raise the accuracy there as problems of the source do.",
    examples=(
        ByHand(
            "4 of 8 votes agree, 3 of 8 do not suffice",
            lambda: [_agreed("77771234"), _agreed("77712345")],
            [1, 0],
        ),
        Reduction("before anything is found to be weak: GRPO", "grpo"),
    ),
)

RECIPES = [SWS, WRITTEN]
