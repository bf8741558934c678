"""SFT as learning an implicit reward: imitation that is held near where it began, for a DPO that comes after.

For reward maximisation with a KL penalty the best policy and the reward are two names of one thing, r = beta log(pi / pi_ref) up to a
constant of the prompt. Read so, SFT matches the demonstrations' distribution in a way in which the penalty drops out: nothing holds the
policy. Two remedies: a much smaller learning rate, and another f-divergence, whose loss keeps a term in pi / pi_ref. Implicit Reward as
the Bridge: A Unified View of SFT and DPO Connections, arXiv 2507.00018.

The losses: matching the demonstrations' distribution under an f-divergence asks for the largest E[phi(r)] - E_pi[r], phi(x) = -f*(-x)
with the convex conjugate f* (as in inverse soft Q-learning, arXiv 2106.12142); r is the implicit reward of each token."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated

import torch
from torch import Tensor

from etude.batch import Batch
from etude.credit.imitate import IMITATION
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, objective
from etude.recipe import Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.update import Update

LOWEST = -0.65  # js is defined above -log 2 = -0.693; below this it goes on as a straight line


def _js(x: Tensor) -> Tensor:
    """log(2 - e^-x), prolonged by its tangent."""
    inside = x.clamp(min=LOWEST)
    edge = math.exp(-LOWEST) / (2 - math.exp(-LOWEST))
    return torch.log(2 - torch.exp(-inside)) + edge * (x - inside)


PHI: dict[str, Callable[[Tensor], Tensor]] = {  # each has phi(0) = 0 and phi'(0) = 1
    "total variation": lambda x: x,
    "pearson": lambda x: x - x**2 / 4,
    "kl": lambda x: -torch.expm1(-x.clamp(min=-20)),
    "js": _js,
}


def matching(
    divergence: Annotated[
        str,
        Setting(
            "f-divergence by which demonstrations are matched; total variation: plain SFT",
            choices=tuple(PHI),
        ),
    ] = "pearson",
    reward_beta: Annotated[
        float, Setting("beta of the implicit reward beta log(pi / pi_ref)", low=1e-3)
    ] = 1.0,
    mean: MeanOver = "token",
) -> Objective:
    """-phi(x_t) / beta, x_t = beta log(pi(y*_t) / pi_ref(y*_t)); metric `left`: by how many nats a token has become likelier."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        rho = out.logp - batch.extras["reference"]
        return -PHI[divergence](reward_beta * rho) / reward_beta, {"left": rho}

    return objective(Term("matching", loss, MEANS[mean], weight=IMITATION), reads={"reference"})


A, B = math.log(2), -math.log(2)  # log pi / pi_ref of the row's tokens
E = math.exp(-LOWEST)

RECIPE = Recipe(
    name="implicit_reward_sft",
    base=SFT,
    paper=Paper(
        "Implicit Reward as the Bridge: A Unified View of SFT and DPO Connections", "2507.00018", 2025
    ),
    idea="Plain imitation lets go of the model that it began with: nothing in its loss says how far it may move. "
    "Here a token that has become much likelier than it was pulls less, and in the end back, and the learning rate is a tenth. "
    "A preference method that comes after finds more of the first model in place.",
    equation="L = - mean_t phi(beta log pi(y*_t)/pi_ref(y*_t)) / beta;  phi(x) = x (SFT), x - x^2/4 (Pearson), 1 - e^-x (KL), log(2 - e^-x) (JS)",
    departures=(
        "could not be verified: no code is public and only the abstract was at hand. The identity of reward and policy is the paper's; the "
        "losses are derived here, with the reward of each token and without the prompt's constant",
        "guess: a learning rate of a tenth of the other recipes' (1e-6); the abstract says only that it is reduced",
    ),
    confidence="guess",
    stages={"objective": stage(matching), "update": stage(Update, lr=1e-6)},
    claim="After SFT at a tenth of the learning rate, or by Pearson's divergence, the DPO that follows ends higher than after plain SFT.",
    manipulation=(
        Manipulated("demonstrated tokens became likelier by 0.01 nats at last", "left", 0.01, read="last"),
    ),
    examples=(
        OffPolicy(
            "Pearson: one token twice as likely as at the start, one half: phi' = 1 - x/2",
            ratio=(2.0, 0.5),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            extras={"reference": (-1.0, -1.0)},
            loss=-(A - A**2 / 4 + B - B**2 / 4) / 2,
            gradient=(-(1 - A / 2) / 2, -(1 - B / 2) / 2),
        ),
        OffPolicy(
            "KL with beta 2: phi = 1 - e^-2x over 2; phi' = e^-2x is 1/4 and 4",
            ratio=(2.0, 0.5),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            extras={"reference": (-1.0, -1.0)},
            settings={"objective.divergence": "kl", "objective.reward_beta": 2.0},
            loss=-((1 - 1 / 4) + (1 - 4)) / 2 / 2,
            gradient=(-1 / 4 / 2, -4 / 2),
        ),
        OffPolicy(
            "JS: phi' = 1 / (2 e^x - 1) is 1/3; at x = -log 2 already its tangent",
            ratio=(2.0, 0.5),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            extras={"reference": (-1.0, -1.0)},
            settings={"objective.divergence": "js"},
            loss=-(math.log(1.5) + math.log(2 - E) + E / (2 - E) * (B - LOWEST)) / 2,
            gradient=(-1 / 3 / 2, -E / (2 - E) / 2),
        ),
        Reduction("total variation: SFT", "sft", {"objective.divergence": "total variation"}),
    ),
)
