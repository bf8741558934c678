"""Reference-guided self-improvement: the model judges its own answers with a reference in view, and learns from its judgements.

Where no program can check an answer, a reference answer still says what a good one holds. A model that could not judge two answers by
itself can often tell which is nearer to the reference. Answers are compared pairwise, in both orders, so that a place is worth nothing;
the answer with the most wins and the one with the fewest are a pair for DPO. References Improve LLM Alignment in Non-Verifiable
Domains, arXiv 2602.16802."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.judged import shares_of
from etude.credit.pairs import preferred
from etude.fixtures.given import GivenContext, GivenModel, example_answers, given_stage
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR
from etude.recipe import ByHand, Manipulated, Paper, Recipe
from etude.rollout.group_rollout import independent, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks.check import Unjudged
from etude.types import NOISE, Array, Group, Message, Signal, Task

ANSWERS = "Question:\n{question}\n\n{shown}Answer A:\n{a}\n\nAnswer B:\n{b}\n\n"
REFERENCE = "A good answer, for comparison:\n{reference}\n\n"
WORDINGS = {  # what is asked behind the answers, and whether the reference is shown
    "eval": (
        "Measure both answers against the good one, in facts and in style. Which of them follows the question best? Reply A or B.",
        True,
    ),
    "match": ("Which of the two answers is more like the good one? Reply A or B.", True),
    "none": ("Which of the two answers is better? Reply A or B.", False),
}
AUXILIARY = {"start": "reference"}


def asked(task: Task, a: str, b: str, wording: str) -> Message:
    """What the judge is asked about two answers."""
    question, shows = WORDINGS[wording]
    shown = REFERENCE.format(reference=task.reference or task.answer or "") if shows else ""
    return Message(
        "user",
        ANSWERS.format(question="\n".join(m.content for m in task.prompt), shown=shown, a=a, b=b) + question,
    )


def wins(share: Array) -> Array:
    """f64[n]: of each answer how many others it beats, a draw being half; `share` f64[n, n] is how often i is preferred to j."""
    beats = np.where(share > 0.5 + NOISE, 1.0, np.where(share < 0.5 - NOISE, 0.0, 0.5))
    np.fill_diagonal(beats, 0.0)
    found: Array = beats.sum(axis=1)
    return found


@writes("policy", extras=(PAIR,))
class GuidedByReference:
    """The answer with the most wins against the one with the fewest; where all have as many, best against worst by the task's check,
    if there is one. P(A is better) is read off the judge's probabilities of "A" and "B" as its reply, and averaged over both orders."""

    def __init__(
        self,
        wording: Annotated[
            str,
            Setting(
                "how the reference is used: a benchmark (eval), for likeness alone (match), or not shown at all (none)",
                choices=tuple(WORDINGS),
            ),
        ] = "eval",
        judge: Annotated[
            str,
            Setting("who judges: the model as it was at first, or as it is now", choices=("start", "policy")),
        ] = "start",
    ) -> None:
        self.wording, self.judge = wording, judge
        self.reads = frozenset({AUXILIARY[judge]} if judge in AUXILIARY else ())
        self.agreed, self.judged = 0.0, 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals, agreed = [], list[bool]()
        for group, share in zip(groups, self._shares(groups, context), strict=True):
            won, total = wins(share), share.sum(axis=1)
            agreed += [
                bool((share[i, j] > 0.5) == (group.rewards[i] > group.rewards[j]))
                for i, j in combinations(range(len(won)), 2)
                if abs(group.rewards[i] - group.rewards[j]) > NOISE
            ]
            if len(won) < 2 or (np.ptp(won) < NOISE and not group.mixed):
                continue
            order = np.lexsort((total, won) if np.ptp(won) > NOISE else (total, group.rewards))
            signals += [
                preferred(group.episodes[order[-1]], 1.0),
                preferred(group.episodes[order[0]], -1.0),
            ]
        self.judged, self.agreed = float(len(agreed)), float(np.mean(agreed)) if agreed else 0.0
        return signals

    def _shares(self, groups: Sequence[Group], context: Context) -> list[Array]:
        """f64[G, G] of each group (`credit.judged`)."""
        judge = context.auxiliary[AUXILIARY[self.judge]] if self.judge in AUXILIARY else context.policy
        return shares_of(groups, context, judge, lambda task, a, b: asked(task, a, b, self.wording))

    def report(self) -> dict[str, float]:
        """`judged`: comparisons of the last step whose answers a check tells apart; `agreed`: the share in which the judge says the
        same."""
        return {"judged": self.judged, "agreed": self.agreed}


def judged(**settings: object) -> list[list[float]]:
    """Token and advantage of the pair that is made of three answers. The judge's log-odds of A over B, pair by pair and in both orders:
    0.5 and -1 (the first is preferred to the second), 2 and 1.5 (to the third, barely), 1 and 3 (the third to the second)."""
    made = example_answers((0.0, (5,)), (0.0, (6,)), (1.0, (7,)))
    odds = (0.5, -1.0, 2.0, 1.5, 1.0, 3.0)
    model = GivenModel(logp=[x for v in odds for x in (v - 3.0, -3.0)])
    context = GivenContext(model, {"reference": model})
    signals = given_stage(RECIPE, "credit", **settings)([made], context)
    return [[float(s.episode.tokens[-1]), float(s.advantage[-1])] for s in signals]


RECIPE: Recipe = Recipe(
    name="reference_guided",
    base=DPO,
    paper=Paper("References Improve LLM Alignment in Non-Verifiable Domains", "2602.16802", 2026),
    idea="The model compares its own answers, two at a time and with a reference in view. "
    "It need not know what is good, only which is nearer to something good. "
    "The answer that wins most and the one that wins least are a pair for DPO.",
    equation="s_ij = [P(A | x, y_i, y_j, y*) + 1 - P(A | x, y_j, y_i, y*)] / 2;  w_i = sum_j [s_ij > 1/2];  L = DPO(argmax w, argmin w)",
    departures=(
        "the verdict is read off the probabilities of the replies A and B; the paper lets the judge write",
        "where the judge is undecided among all answers and the task has a check, the check decides",
        "wordings are etude's own, after public summaries of the paper; so is the choice of most against fewest wins",
        "the fine-tuning on references that comes first is a run of its own (sft), whose model this one starts from; one reference a task, "
        "where the paper takes a vote over several",
    ),
    confidence="guess",
    stages={
        "group_rollout": stage(independent),
        "reward": stage(optional_verdict),
        "credit": stage(GuidedByReference),
    },
    needs=("answer", "text"),
    claim="The same judge is right more often with the reference in view than without it.",
    manipulation=(
        PREFERRED,
        Manipulated("where a check can tell, the judge is right in six cases of ten", "credit.agreed", 0.6),
    ),
    examples=(
        ByHand(
            "two wins, against none: sigmoid(0.5) + 1 - sigmoid(-1) > 1, sigmoid(2) > sigmoid(1.5), sigmoid(1) < sigmoid(3)",
            judged,
            [[5, 1], [6, -1]],
        ),
        ByHand("the same by the policy of now", lambda: judged(judge="policy"), [[5, 1], [6, -1]]),
        ByHand(
            "three that beat each other in turn are no pair; a draw is half a win",
            lambda: [
                wins(np.array([[0.5, 0.6, 0.4], [0.4, 0.5, 0.6], [0.6, 0.4, 0.5]])).tolist(),
                wins(np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.5], [0.1, 0.5, 0.5]])).tolist(),
            ],
            [[1, 1, 1], [1.5, 1, 0.5]],
        ),
        ByHand(
            "the reference stands in the question, unless it is not to be shown",
            lambda: [
                float("3+4=7" in asked(Task("q", Unjudged(), reference="3+4=7"), "a", "b", w).content)  # type: ignore[arg-type]
                for w in WORDINGS
            ],
            [1, 1, 0],
        ),
        ByHand(
            "nothing checked, no reward",
            lambda: given_stage(RECIPE, "reward")(
                replace(example_answers((0.0, (5,))).episodes[0], verdicts=())
            )["reward"],
            0.0,
        ),
    ),
)
