"""T-REG: DPO, told by the model itself which tokens made the difference.

The frozen start is asked to revise a response for the better, and for the worse; what that does to the probability of
each of its tokens is a token reward, with which DPO's preference is held to agree. Preference Optimization with
Token-Level Reward Regularization, arXiv 2412.02685."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np
import torch

from etude.batch import Batch
from etude.channels import writes
from etude.credit.pairs import Margin, Pairs, answer_of, preference_pairs, preferred
from etude.fixtures.attempts import credited_signals, example_attempts
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, DpoBeta, dpo_loss, implicit_rewards, pairs_of
from etude.objective.terms import Objective, Term, TokenLoss, objective, sum_per_episode
from etude.recipe import ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.pairs import SIDES
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Group, Message, Signal, Span

TOKEN_REWARD = "token_reward"
"""Extra: what the frozen start thinks of each token of a response."""

# ---- credit ------------------------------------------------------------------------------------------

REVISE = "{how}\n\nQuestion: {question}\n\nResponse: {response}"
FOR_THE_BETTER = "Revise the response so that it is more helpful, correct, coherent and concise."
FOR_THE_WORSE = "Revise the response so that it is less helpful, incorrect, incoherent and verbose."


def token_reward(better: Array, worse: Array) -> Array:
    """sigmoid(log pi_ref(y_t | better) - log pi_ref(y_t | worse)) - 1/2, in [-1/2, 1/2]."""
    return 1 / (1 + np.exp(worse - better)) - 0.5


def _revised(how: str, signals: Sequence[Signal], context: Context) -> list[Array]:
    """f32[T] each: log pi_ref of the sampled tokens after a prompt that asks to revise the response."""
    renderer, asked, sizes = context.policy.renderer, [], []
    for episode in (s.episode for s in signals):
        first = next(i for i, span in enumerate(episode.spans) if span.sampled or span.tag in SIDES)
        response = renderer.decode(episode.tokens[answer_of(episode)])
        text = REVISE.format(how=how, question=episode.task.prompt[-1].content, response=response)
        prompt = Span("user", renderer.prompt([Message("user", text)]))
        spans = (prompt, *episode.spans[first:])
        sizes.append((len(prompt), sum(len(s) for s in episode.spans[:first])))
        asked.append(preferred(replace(episode, spans=spans), 0.0))
    model = context.auxiliary["reference"]
    rows = context.rows(asked, lambda out: out.logp, policy=model)
    return [np.append(np.zeros(old, np.float32), r[new:]) for r, (new, old) in zip(rows, sizes, strict=True)]


@writes("policy", extras=(PAIR, TOKEN_REWARD))
def contrasted_pairs(
    pairs: Pairs = 1,
    margin: Margin = 1e-6,
    better: Annotated[str, Setting("how a response is to be revised for the better")] = FOR_THE_BETTER,
    worse: Annotated[str, Setting("how it is to be revised for the worse")] = FOR_THE_WORSE,
) -> Credit:
    """Preference pairs, with the extra `TOKEN_REWARD`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = preference_pairs(pairs, margin)(groups, context)
        rows = [_revised(how, signals, context) for how in (better, worse)]
        rewards = [
            token_reward(*both) * answer_of(s.episode) for s, *both in zip(signals, *rows, strict=True)
        ]
        return [
            replace(s, extras={**s.extras, TOKEN_REWARD: r.astype(np.float32)})
            for s, r in zip(signals, rewards, strict=True)
        ]

    return credit


# ---- loss --------------------------------------------------------------------------------------------


def regularised(
    dpo_beta: DpoBeta = 0.1,
    regulariser_weight: Annotated[
        float, Setting("alpha: weight of the token-level regulariser", low=0)
    ] = 0.25,
    detach: Annotated[bool, Setting("hold DPO's weight of a pair fixed")] = True,
) -> Objective:
    """L_DPO + alpha w (L_REG(y+) + L_REG(y-)), L_REG = -sum_t beta r_t log pi(y_t), w = sigmoid(beta (d- - d+))."""

    def regulariser(out: Outputs, batch: Batch) -> TokenLoss:
        d = implicit_rewards(out, batch)
        chosen, rejected = pairs_of(batch)
        w = torch.sigmoid(dpo_beta * (d[rejected] - d[chosen]))
        weight = torch.zeros_like(d).index_add(0, torch.cat([chosen, rejected]), w.repeat(2))
        weight = (weight.detach() if detach else weight)[batch.episode]
        # the mean is over episodes, two to a pair
        return -2 * weight * dpo_beta * batch.extras[TOKEN_REWARD] * out.logp

    base = dpo_loss(dpo_beta)
    if not regulariser_weight:
        return base + objective(silent={TOKEN_REWARD})
    term = Term("regulariser", regulariser, sum_per_episode, coefficient=regulariser_weight)
    return base + objective(term, unit="group", extras={TOKEN_REWARD})


# ---- the recipe --------------------------------------------------------------------------------------


def _token_rewards(better: float, worse: float) -> list[list[float]]:
    """The extra `TOKEN_REWARD` of a right and a wrong answer of one token behind a prompt of two, where the start gives
    every token these log-probabilities behind the one request and the other."""

    def prompt(messages: Sequence[Message]) -> Array:  # of one token, which tells the two requests apart
        return np.array([messages[0].content.startswith(FOR_THE_BETTER)], np.int32)

    def rows(signals: Sequence[Signal], *_: Any, **__: Any) -> list[Array]:
        return [
            np.full(len(s.advantage), better if s.episode.tokens[0] else worse, np.float32) for s in signals
        ]

    renderer = SimpleNamespace(prompt=prompt, decode=lambda tokens: "")
    signals = credited_signals(
        RECIPE,
        [example_attempts(1.0), example_attempts(0.0)],
        rows=rows,
        policy=SimpleNamespace(renderer=renderer),
        auxiliary={"reference": None},
    )
    return [s.extras[TOKEN_REWARD].tolist() for s in signals]


W = 1 / (1 + 24**0.1)  # of the row below: sigmoid(beta (d- - d+)), d+ - d- = log 6 - log(1/4)

RECIPE = Recipe(
    name="t_reg",
    base=DPO,
    paper=Paper("T-REG: Preference Optimization with Token-Level Reward Regularization", "2412.02685", 2024),
    idea="The starting model is asked, in thought, to make a response better, and to make it worse. "
    "Tokens that it would rather write in the better version get a positive reward, the others a negative one. "
    "DPO is held to agree with these rewards, so that its preference settles on the tokens that matter.",
    equation="r_t = sigmoid(log ref(y_t|x_better) - log ref(y_t|x_worse)) - 1/2;  "
    "L = L_DPO - alpha sg[sigmoid(beta (d- - d+))] sum over y+, y- of sum_t beta r_t log pi(y_t)",
    departures=(
        "pairs are sampled anew from the current policy at every step, where the paper has best and worst of 5 by a reward model",
        "guess: the pair's weight is held fixed (objective.detach), beta = 0.1, alpha is the middle one of the three tried",
        "the wording of the two revision prompts is ours",
    ),
    stages={"credit": stage(contrasted_pairs), "objective": stage(regularised)},
    claim="On pairs that differ in one step, the implicit reward gap lies on the differing tokens more than under DPO.",
    manipulation=(PREFERRED,),
    examples=(
        ByHand(
            "a word three times likelier in a better version: 3/4 - 1/2, and nothing on the prompt",
            lambda: _token_rewards(math.log(3) - 4, -4.0),
            [[0, 0, 0.25], [0, 0, 0.25]],
        ),
        ByHand(
            "three times likelier in a worse one",
            lambda: _token_rewards(-4.0, math.log(3) - 4),
            [[0, 0, -0.25], [0, 0, -0.25]],
        ),
        OffPolicy(
            "DPO's row of margin log 24, and -alpha w beta sum r_t log pi(y_t) with r = 0.5, -0.25; 0.25",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={
                "reference": (-1.0, -1 - math.log(3), math.log(2) - 1),
                PAIR: (1, 1, 1),
                TOKEN_REWARD: (0.5, -0.25, 0.25),
            },
            loss=-math.log(1 - W)
            - 0.25 * W * 0.1 * (0.5 * (math.log(2) - 1) + 0.25 * 1 + 0.25 * (-1 - math.log(2))),
            gradient=(
                -0.1 * W - 0.25 * W * 0.1 * 0.5,
                -0.1 * W + 0.25 * W * 0.1 * 0.25,
                0.1 * W - 0.25 * W * 0.1 * 0.25,
            ),
        ),
        Reduction("alpha 0: DPO", "dpo", {"objective.regulariser_weight": 0.0}),
        Reduction(
            "the same prompt twice: DPO", "dpo", {"credit.worse": "Revise.", "credit.better": "Revise."}
        ),
    ),
)
