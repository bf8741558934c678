"""Targeted latent adversarial training: a behaviour is trained away while hidden states are pushed towards it.

Of a pair, y- is the behaviour that must not be shown and y+ what is to be said in its place. An adversary adds to the hidden states of
the prompt's tokens, at some layers, whatever makes y- likeliest within a ball; under it the policy learns y+. What has been unlearnt so
cannot be brought back by a prompt that nobody thought of. Sheshadri et al., arXiv 2407.15549, and the release
(aengusl/latent-adversarial-training).

    inner   min over |delta_t| <= eps of   c_to CE(y-) - c_away mean log(1 - pi(y+_t)),   AdamW, projected after each of m steps
    outer   c_to CE(y+) - c_away mean log(1 - pi(y-_t))   under delta,   + c_benign CE(y) of other tasks without it

Tokens with log pi below -5 are left out of the two means of log(1 - pi), as they are unlikely enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.credit.pairs import answer_of
from etude.errors import UserError
from etude.fixtures.given import PROMPT, beyond_prompt, given_stage
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.hooks import Hook, Perturb, depth, hooked
from etude.models.outputs import Outputs
from etude.objective.imitation import imitation
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective, segment_sum
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.pairs import pairs_or_solution, side_of
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.tasks.pairs import CHOSEN, REJECTED
from etude.types import Episode, Group, Signal, Span, Task

TOWARD, AWAY = "toward", "away"
"""Weight rows: the tokens of y+, and those of y-."""
ATTACKED = "attacked"  # extra: 1 on the tokens whose hidden states are pushed
UNLIKELY = -5.0  # log pi below which a token is unlikely enough

# ---- credit ------------------------------------------------------------------------------------------


@writes(TOWARD, AWAY, IMITATION, extras=(ATTACKED,))
def behaviours(
    attack_answers: Annotated[
        bool, Setting("the answers' hidden states are pushed as well as the prompt's")
    ] = False,
) -> Credit:
    """y+ in the row `TOWARD`, y- in `AWAY`, both with their prompts attacked; solutions of other tasks in `IMITATION`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for episode in (e for g in groups for e in g.demonstrations):
            answer = answer_of(episode).astype(np.float32)
            none = np.zeros_like(answer)
            if side := side_of(episode):
                row = TOWARD if side == CHOSEN else AWAY
                pushed = np.ones_like(answer) if attack_answers else 1 - answer
                signals.append(Signal(episode, none, {row: answer}, {ATTACKED: pushed}))
            else:
                kept = imitate(episode, tagged(episode, DEMONSTRATED))
                signals.append(replace(kept, extras={ATTACKED: none}))
        return signals

    return credit


# ---- the adversary -----------------------------------------------------------------------------------


def avoided(logp: Tensor) -> Tensor:
    """f32[N]: -log(1 - pi), and 0 where log pi is below `UNLIKELY`."""
    found = -torch.log((-torch.expm1(logp)).clamp(min=1e-7))
    return torch.where(logp < UNLIKELY, 0.0, found)


class Pushed(Perturb):
    """A perturbation whose width is known when it first sees a state. int64[N] `first`: tokens with the same number share a delta, so
    that both answers of a pair stand behind the same pushed prompt, however a body lays them out."""

    def __init__(self, where: Tensor, first: Tensor, radius: float) -> None:
        super().__init__(where, 0, radius)
        self.first = first

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        if not self.delta.shape[1]:
            self.delta = torch.zeros(
                len(self.where), state.shape[-1], device=self.where.device, requires_grad=True
            )
        shared = None if tokens is None else torch.where(tokens < 0, tokens, self.first[tokens.clamp(min=0)])
        return super().__call__(state, shared)


def first_of(batch: Batch, where: Tensor) -> Tensor:
    """int64[N]: of the attacked tokens the first of the group at the same position of its sequence, if that token is the same;
    of all others the token itself."""
    found = torch.arange(len(batch))
    seen: dict[tuple[int, int, int], int] = {}
    for t in where.nonzero()[:, 0].tolist():
        key = (int(batch.group[t]), int(batch.position[t]), int(batch.tokens[t]))
        found[t] = seen.setdefault(key, t)
    return found


def inner_loss(logp: Tensor, batch: Batch, toward: float, away: float) -> Tensor:
    """What the adversary lowers: for each group the mean over its tokens of either kind, summed over groups, so that what is found for
    one pair does not depend on the pairs beside it."""
    total = logp.new_zeros(())
    for row, loss, weight in ((AWAY, -logp, toward), (TOWARD, avoided(logp), away)):
        on = batch.weight(row).to(logp.device) != 0
        group = batch.group.to(logp.device)
        number = segment_sum(on.float(), group).clamp(min=1)
        total = total + weight * (segment_sum(torch.where(on, loss, 0.0), group) / number).sum()
    return total


def attack(
    policy: Any,
    batch: Batch,
    layers: Sequence[int],
    radius: float,
    steps: int,
    lr: float,
    toward: float,
    away: float,
) -> list[Hook]:
    """The hooks of the deltas that so many steps, at least one, of projected AdamW find."""
    where = batch.extras[ATTACKED] != 0
    first = first_of(batch, where).to(policy.device)
    pushes = [Pushed(where.to(policy.device), first, radius) for _ in layers]
    hooks = [Hook(layer, push) for layer, push in zip(layers, pushes, strict=True)]
    optimiser: torch.optim.AdamW | None = None
    with hooked(policy, *hooks), torch.enable_grad():
        for _ in range(steps):
            loss = inner_loss(policy.outputs(batch).logp, batch, toward, away)
            deltas = [push.delta for push in pushes]
            found = torch.autograd.grad(loss, deltas, allow_unused=True)
            optimiser = optimiser or torch.optim.AdamW(deltas, lr=lr)
            for delta, gradient in zip(deltas, found, strict=True):
                delta.grad = torch.zeros_like(delta) if gradient is None else torch.nan_to_num(gradient)
            optimiser.step()
            for push in pushes:
                push.project()
    for push in pushes:
        push.delta.requires_grad_(False)
    return hooks


# ---- loss --------------------------------------------------------------------------------------------


def adversarial(
    radius: Annotated[float, Setting("eps: largest L2 norm of a token's perturbation", low=0)] = 1.5,
    attack_layers: Annotated[
        int,
        Setting(
            "layers that are pushed, evenly spaced, the first of them what enters the first block", low=1
        ),
    ] = 4,
    attack_steps: Annotated[
        int, Setting("m: steps of the adversary before each update", low=0, high=1000)
    ] = 16,
    attack_lr: Annotated[float, Setting("learning rate of the adversary", low=0, high=10)] = 5e-2,
    toward_weight: Annotated[
        float, Setting("weight of making an answer likelier, of both sides", low=0)
    ] = 0.5,
    away_weight: Annotated[
        float, Setting("weight of making the other less likely, of both sides", low=0)
    ] = 0.5,
    benign_weight: Annotated[float, Setting("weight of imitating other tasks' solutions", low=0)] = 1.0,
) -> Objective:
    """The outer loss, whose forward pass is computed under the adversary's hooks. Weights are divided by their sum. Metrics: how likely
    the tokens of y+ and of y- are under attack."""
    whole = toward_weight + away_weight + benign_weight
    if not whole:
        raise UserError(
            "objective.toward_weight, away_weight and benign_weight are all 0, so nothing is trained; raise one"
        )
    both = toward_weight + away_weight or 1.0

    def toward(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp, {"wanted": out.logp.exp()}

    def away(out: Outputs, batch: Batch) -> TokenLoss:
        return avoided(out.logp), {"unwanted": out.logp.exp()}

    @contextmanager
    def under(policy: Any, batch: Batch) -> Iterator[None]:
        if not (radius and attack_steps and ATTACKED in batch.extras and batch.extras[ATTACKED].any()):
            yield
            return
        blocks = depth(policy)
        layers = sorted({i * blocks // attack_layers for i in range(attack_layers)})
        weights = (toward_weight / both, away_weight / both)
        with hooked(policy, *attack(policy, batch, layers, radius, attack_steps, attack_lr, *weights)):
            yield

    found = objective(
        Term("toward", toward, MEANS["token"], weight=TOWARD, coefficient=toward_weight / whole),
        Term("away", away, MEANS["token"], weight=AWAY, coefficient=away_weight / whole),
        imitation(benign_weight / whole),
        unit="group",
        extras={ATTACKED},
    )
    return replace(found, under=under)


# ---- the recipe --------------------------------------------------------------------------------------


def _pair() -> list[Signal]:
    """y+ = 3, y- = 4 5 behind a prompt of one token."""

    def answer(side: str, *tokens: int) -> Episode:
        spans = (PROMPT, Span("assistant", np.array(tokens, np.int32), tag=side))
        return Episode(Task((), lambda text: None), spans, player=DEMONSTRATED)  # type: ignore[arg-type, return-value]

    pair = (answer(CHOSEN, 3), answer(REJECTED, 4, 5))
    return given_stage(RECIPE, "credit")([Group(pair[0].task, (), demonstrations=pair)], None)


E5 = math.exp(-0.5)

RECIPE: Recipe = Recipe(
    name="targeted_lat",
    base=SFT,
    paper=Paper(
        "Latent Adversarial Training Improves Robustness to Persistent Harmful Behaviors in LLMs",
        "2407.15549",
        2024,
    ),
    published_lr=2e-5,
    idea="Training away what a model says leaves what makes it say so in place, and another prompt may bring it back. So, before every "
    "update, hidden states of the prompt are pushed, within a ball, to where the unwanted answer is likeliest, and the model learns to give "
    "the wanted answer even then. Other tasks are imitated unpushed, so that nothing else is lost.",
    equation="min_theta max_{|d_t|<=e} CE(y+) - mean log(1 - pi(y-)) under h + d;  + CE(y) of other tasks",
    departures=(
        "the attack is made anew for each update, where the release trains four times against one attack of Llama-3 and once of Llama-2",
        "other tasks are imitated; the release may hold them by a KL to the start in place of that",
        "pairs are trained by likelihoods, not by the DPO variant of the backdoor experiments, whose radius and rates are the defaults",
        "layers are evenly spaced, as the paper's are up to the last (embeddings, 8, 16, 24, 30 of 32)",
    ),
    stages={
        "group_rollout": stage(pairs_or_solution),
        "credit": stage(behaviours),
        "objective": stage(adversarial),
    },
    needs=("answer", "text"),
    claim="A planted behaviour is removed without knowing what triggers it, and is learnt again more slowly than after plain fine-tuning.",
    unchecked="its metrics wanted and unwanted are measured under attack",
    examples=(
        ByHand("rows of y+", lambda: beyond_prompt(_pair(), TOWARD), [1, 0, 0]),
        ByHand("rows of y-", lambda: beyond_prompt(_pair(), AWAY), [0, 1, 1]),
        ByHand(
            "attacked: the prompts",
            lambda: np.concatenate([s.extras[ATTACKED] for s in _pair()]),
            [1, 0, 1, 0, 0],
        ),
        ByHand(
            "log pi = log 1/2, and one that is unlikely enough: log 2 and 0",
            lambda: avoided(torch.tensor([-math.log(2), -5.1])).tolist(),
            [math.log(2), 0],
        ),
        OffPolicy(
            "y+ twice as likely as when written, y- e^(1/2) times: pi = e^(-1/2), d -log(1 - pi) = pi / (1 - pi); another's solution",
            ratio=(2.0, math.exp(0.5), 0.5),
            advantage=(0.0, 0.0, 0.0),
            weights={TOWARD: (1, 0, 0), AWAY: (0, 1, 0), IMITATION: (0, 0, 1)},
            extras={ATTACKED: (0, 0, 0)},
            loss=0.25 * (1 - math.log(2)) - 0.25 * math.log(1 - E5) + 0.5 * (1 + math.log(2)),
            gradient=(-0.25, 0.25 * E5 / (1 - E5), -0.5),
        ),
        Reduction(
            "no pairs, or neither toward nor away: SFT",
            "sft",
            {"objective.toward_weight": 0.0, "objective.away_weight": 0.0, "objective.radius": 0.0},
        ),
    ),
)
