"""C3PO: feedback that is obeyed where it applies, and nowhere else.

Preference pairs of prompts within the feedback's scope go through DPO. For prompts near its scope, and for any others, the model is
held to what it said before. RLVF: Learning from Verbal Feedback without Overgeneralization, arXiv 2402.10893."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated

import numpy as np
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.pairs import Margin, Pairs, given_pairs, sampled_pairs
from etude.fixtures.given import example_answers, given_stage
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective, Term, TokenLoss, per_token
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.pairs import lay_out
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Episode, Group, Signal, Task

NEAR, OUT = "near", "out"  # values of the column `scope`, and weight rows: the answers that are kept
SCOPE = "scope"


def scope_of(task: Task) -> str:
    """ "near" or "out" of the feedback's scope, by the task's column `scope`; "" within it."""
    said = str(task.meta.get(SCOPE, ""))
    return said if said in (NEAR, OUT) else ""


def pairs_or_own_answers() -> GroupRolloutStage:
    """Within the scope, the pair that a task brings, or attempts; beyond it one answer of the starting model."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        if not scope_of(rollouts.task):
            return lay_out(rollouts) or await rollouts.plays(range(rollouts.samples))
        start = replace(rollouts, generator=rollouts.generators["reference"])
        return await start.plays([0])

    return group_rollout


@writes("policy", NEAR, OUT, extras=(PAIR,))
def scoped(pairs: Pairs = 1, margin: Margin = 1e-6) -> Credit:
    """Pairs within the scope; beyond it the starting model's answers, in the weight row of their scope."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            if name := scope_of(group.task):
                signals += [kept(e, name) for e in group.episodes]
            else:
                signals += given_pairs(group) or sampled_pairs(group, context, pairs, margin)
        return signals

    return credit


def kept(episode: Episode, name: str) -> Signal:
    """The sampled tokens in the weight row `name`; in no pair."""
    row = episode.sampled.astype(np.float32)
    return Signal(episode, 0 * row, {name: row}, {PAIR: 0 * row})


def constrained(
    dpo_beta: DpoBeta = 0.1,
    near_weight: Annotated[float, Setting("weight of what is kept near the scope", low=0)] = 0.1,
    out_weight: Annotated[float, Setting("weight of what is kept elsewhere", low=0)] = 0.2,
) -> Objective:
    """DPO's loss, a mean over pairs, - near_weight mean_t log pi(y_t) - out_weight mean_t log pi(y_t), over the answers that
    are to be kept."""

    def loss(chosen: Side, rejected: Side) -> Tensor:
        return pair_loss(chosen.over_reference - rejected.over_reference, dpo_beta)

    def same(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    near = Term(NEAR, same, per_token, weight=NEAR, coefficient=near_weight)
    far = Term(OUT, same, per_token, weight=OUT, coefficient=out_weight)
    return over_pairs(loss, near, far)


def credited() -> list[list[float]]:
    """Weights at the last token in the rows policy, near and out, of a pair and of one answer either side of the scope."""
    pair = example_answers((1.0, (5,)), (0.0, (6,)))
    groups = [pair]
    for name in (NEAR, OUT):
        task = Task(name, pair.task.check, meta={SCOPE: name})  # type: ignore[arg-type]
        groups.append(replace(pair, task=task, episodes=(replace(pair.episodes[1], task=task),)))
    signals = given_stage(RECIPE, "credit")(groups, SimpleNamespace(seed=0, step=0))
    return [
        [float(s.weights[n][-1]) if n in s.weights else 0.0 for n in ("policy", NEAR, OUT)] for s in signals
    ]


W = 1 / (1 + 24**0.1)  # DPO's row: sigmoid(-beta margin)

RECIPE: Recipe = Recipe(
    name="c3po",
    base=DPO,
    paper=Paper("RLVF: Learning from Verbal Feedback without Overgeneralization", "2402.10893", 2024),
    published_lr=5e-5,
    idea="Feedback such as 'be brief with mails' should change mails and nothing else. "
    "Pairs of prompts within its scope are learned by DPO. "
    "For prompts near it and far from it the model imitates what it said before.",
    equation="L = DPO(in scope) - s_near mean_t log pi(y_t) - s_out mean_t log pi(y_t),  y ~ pi_0 beyond the scope",
    departures=(
        "prompts come with a column `scope` (near, out, or none for those within), and with pairs or a reward; the paper lets GPT-4 write "
        "the prompts from the feedback, and the model revise its answers",
        "the starting model answers as training goes, and not once beforehand",
    ),
    stages={
        "group_rollout": stage(pairs_or_own_answers),
        "credit": stage(scoped),
        "objective": stage(constrained),
    },
    claim="The feedback is obeyed as often as under DPO, and answers beyond its scope change less.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand(
            "a pair, then what is kept near and out", credited, [[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]
        ),
        OffPolicy(
            "DPO's row of margin log 24; one token kept near the scope with log pi = -1 + log 2, two elsewhere with -1",
            ratio=(2.0, 1.0, 0.5, 2.0, 1.0, 1.0),
            advantage=(1.0, 1.0, -1.0, 0.0, 0.0, 0.0),
            lengths=(2, 1, 1, 2),
            weights={"policy": (1, 1, 1, 0, 0, 0), NEAR: (0, 0, 0, 1, 0, 0), OUT: (0, 0, 0, 0, 1, 1)},
            extras={
                "reference": (-1.0, -1 - math.log(3), math.log(2) - 1, 0, 0, 0),
                PAIR: (1, 1, 1, 0, 0, 0),
            },
            settings={"objective.near_weight": 0.5, "objective.out_weight": 0.25},
            loss=-math.log(1 - W) + 0.5 * (1 - math.log(2)) + 0.25,
            gradient=(-0.1 * W, -0.1 * W, 0.1 * W, -0.5, -0.125, -0.125),
        ),
        Reduction("every prompt within the scope: DPO", "dpo"),
    ),
)
