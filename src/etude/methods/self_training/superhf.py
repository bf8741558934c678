"""SuperHF: the best of several answers is imitated, and the policy is held to where it began by the divergence of whole distributions.

Small steps: of each prompt a few answers are drawn from the policy as it is now, the one that the reward likes best is imitated once, and
a full KL divergence from the starting model keeps what the reward does not speak of. It replaces PPO with two supervised losses. SuperHF:
Supervised Iterative Learning from Human Feedback, arXiv 2310.16763; loss and numbers after the released code (openfeedback/superhf,
`src/superhf/training.py`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.fixtures.given import GivenContext, GivenModel, example_answers, example_loss, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.self_training.raft import highest
from etude.models.outputs import Outputs
from etude.objective.imitation import imitation
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_token
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Group, Signal

START = "reference"
NEVER = -1e30  # log-probability of what cannot be said
LIKELIEST = 16  # tokens that the divergence tells apart at each place
NAMED, SHARE = (tuple(f"{name}{k}" for k in range(LIKELIEST)) for name in ("named", "share"))
"""Extras: the likeliest tokens under the starting model at each place, and their log-probabilities there."""


@writes(IMITATION, extras=(*NAMED, *SHARE))
def best_held_to_start() -> Credit:
    """Imitation of the answer with the highest reward, with what the starting model would have said at each of its places."""
    choose = highest()

    def likeliest(out: Outputs) -> Tensor:
        """f32[N, 2 k]: tokens, and their log-probabilities."""
        assert out.hidden is not None
        on = (out.hidden != 0).any(-1).nonzero()[:, 0]
        logp = torch.log_softmax(out.logits(on).float().cpu(), -1)
        missing = max(0, LIKELIEST - logp.shape[1])  # a smaller vocabulary: tokens that are never said
        found = torch.nn.functional.pad(logp, (0, missing), value=NEVER).topk(LIKELIEST, dim=-1)
        named = found.indices.where(found.values > NEVER, 0)
        both = torch.cat([named.float(), found.values], -1)
        return torch.zeros(len(out.logp), both.shape[1]).index_copy(0, on.cpu(), both)

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        best = choose(groups, context)
        rows = context.rows(best, likeliest, {"hidden"}, policy=context.auxiliary[START])
        names = (*NAMED, *SHARE)
        return [
            replace(s, extras={name: row[:, i] for i, name in enumerate(names)})
            for s, row in zip(best, rows, strict=True)
        ]

    credit.reads = frozenset({START})  # type: ignore[attr-defined]
    return credit


def held_to_start(
    full_kl_weight: Annotated[
        float, Setting("beta: weight of the divergence from the starting model's distribution", low=0)
    ] = 0.35,
) -> Objective:
    """CE + beta max(0, KL(pi_0 || pi)), token means over the answers. The KL is that between both distributions over the starting model's
    k likeliest tokens, one by one, and all others together: never more than the whole, and equal to it for k = |V|."""

    def diverged(out: Outputs, batch: Batch) -> TokenLoss:
        on = (batch.weight(IMITATION) != 0).nonzero()[:, 0]
        named = torch.stack([batch.extras[name][on] for name in NAMED], -1).long()
        start = torch.stack([batch.extras[name][on] for name in SHARE], -1).float()
        now = torch.log_softmax(out.logits(on).float(), -1).gather(1, named)
        rest, rest_now = ((1 - logp.exp().sum(-1)).clamp(min=1e-6) for logp in (start, now))
        kl = (start.exp() * (start - now)).sum(-1) + rest * (rest / rest_now).log()
        return torch.zeros_like(out.logp).index_copy(0, on, kl.clamp(min=0).to(out.logp)), {}

    if not full_kl_weight:
        return objective(imitation(), silent=(*NAMED, *SHARE))
    term = Term("divergence", diverged, per_token, weight=IMITATION, coefficient=full_kl_weight)
    return objective(imitation(), term, needs={"hidden"}, extras=(*NAMED, *SHARE))


def _spread(first: float, second: float) -> list[float]:
    """Logits of a model that gives each of 16 tokens one probability and each of 16 others another."""
    return [*[math.log(first)] * 16, *[math.log(second)] * 16, *[-1e9] * 32]


def _chosen() -> list[float]:
    """Of rewards 0.2 and 0.7, whose answer is imitated; and the starting model's likeliest token there with its probability, and the
    probability of the sixteenth: token 40 has 0.08, fifteen others 0.04 and sixteen 0.02."""
    group = example_answers((0.2, (5,)), (0.7, (6,)))
    row = [*[math.log(0.04)] * 15, *[math.log(0.02)] * 16, *[-1e9] * 33]
    row[40] = math.log(0.08)
    context: Any = GivenContext(auxiliary={START: GivenModel(hidden=[row])})
    (signal,) = given_stage(RECIPE, "credit")([group], context)
    last = {name: float(values[-1]) for name, values in signal.extras.items()}
    return [
        float(signal.episode.tokens[-1]),
        last["named0"],
        math.exp(last["share0"]),
        math.exp(last["share15"]),
    ]


def _loss(**settings: Any) -> float:
    """log pi = -2; the starting model gives 16 tokens 0.04 each and 16 others 0.0225, the policy 0.02 and 0.0425."""
    group = example_answers((1.0, (6,)))
    context: Any = GivenContext(auxiliary={START: GivenModel(hidden=[_spread(0.04, 0.0225)])})
    signals = given_stage(RECIPE, "credit")([group], context)
    now = GivenModel(logp=-2.0, hidden=[_spread(0.02, 0.0425)])
    return example_loss(given_stage(RECIPE, "objective", **settings), signals, now)


RECIPE: Recipe = Recipe(
    name="superhf",
    base=RFT,
    paper=Paper("SuperHF: Supervised Iterative Learning from Human Feedback", "2310.16763", 2023),
    published_lr=2e-5,
    idea="Of several answers to a prompt the one with the highest reward is imitated, from the policy as it is now. "
    "The distribution at every token is held to that of the starting model. "
    "So a reward that can be fooled is followed only as far as the language allows.",
    equation="L = - mean_t log pi(y*_t) + beta mean_t max(0, KL(pi_0 || pi)),  y* = argmax_{y_1..y_S} r(x, y)",
    departures=(
        "the divergence tells the starting model's 16 likeliest tokens apart and takes all others together: never more than the whole, and close to it "
        "where the rest is unlikely; the release computes it over the whole vocabulary",
        "an empty answer counts as any other, where the release drops it",
        "run.group_size answers to run.tasks_per_step prompts a step; the release has 16 to 1 or 2, and a schedule that persists, as here",
        "its penalty on length and its bound on the cross-entropy are not here: parts of --reward, and `run` have the like",
    ),
    stages={"credit": stage(best_held_to_start), "objective": stage(held_to_start)},
    auxiliary={START: AuxiliaryModel("start")},
    claim="With a reward that can be fooled, without the divergence the reward ends higher and what it stands for lower.",
    manipulation=(Manipulated("the policy leaves its start", "loss/divergence", 1e-4, read="max"),),
    examples=(
        ByHand("the better one; the likeliest are its starting model's", _chosen, [6, 40, 0.08, 0.04]),
        ByHand(
            "2 + 0.35 (16 x 0.04 log 2 + 0.36 log(0.36 / 0.68))",
            _loss,
            2 + 0.35 * (0.64 * math.log(2) + 0.36 * math.log(0.36 / 0.68)),
        ),
        ByHand("beta = 0", lambda: _loss(full_kl_weight=0.0), 2),
        Reduction("beta = 0: RAFT", "raft", {"objective.full_kl_weight": 0.0}),
    ),
)
