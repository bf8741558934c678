"""RLTF: learning from what a critic says of a wrong answer, not only from its verdict.

A wrong answer y_1 is criticised (c), and the model answers again (y_2) with the critique in view; both turns are
reinforced. Two variants then make the critique's gain lasting: self-distillation (RLTF-SD) also learns y_2 as an answer
to the bare question, feedback modelling (RLTF-FM) learns to predict c from question and answer alone. Expanding the
Capabilities of Reinforcement Learning via Text Feedback, arXiv 2602.02482."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.batch import Batch
from etude.channels import writes
from etude.credit.attempts import DISTILLED, adopted, compared, distilled, on_parts, scores_of
from etude.credit.imitate import IMITATION, tagged
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts, weights_of
from etude.models.outputs import Outputs
from etude.objective.hybrid import DistilWeight, imitation
from etude.objective.policy import MeanOver
from etude.objective.terms import MEANS, Objective, Term, TokenLoss, log_ratio, objective, sharing_denominator
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import FIRST, SECOND, FormPenalty, less_form, scores
from etude.rollout.attempts import attempt_tag
from etude.rollout.second import CRITICISE_UNAIDED, CRITIQUE, Refine
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward
from etude.types import Array, Group, Signal

# ---- reward ------------------------------------------------------------------------------------------


def formatted(
    form_penalty: FormPenalty = 0.1,
) -> Reward:
    """The scores of the attempts' rewards, each less `form_penalty` where no answer was found."""
    return lambda episode: scores(less_form(episode, form_penalty))


# ---- credit ------------------------------------------------------------------------------------------

TurnDiscount = Annotated[
    float, Setting("gamma: what the second turn's reward counts for the first", low=0, high=1)
]


def two_turns(groups: Sequence[Group], gamma: float) -> list[Signal]:
    """Each turn's return against the mean of that turn's returns in the group, over those who had the turn:
    R_1 = r_1 + gamma r_2 (r_1 where there was no second attempt), R_2 = r_2."""
    signals = []
    for group in groups:
        r1, r2 = scores_of(group, FIRST), scores_of(group, SECOND)
        first = compared([(a or 0.0) + gamma * (b or 0.0) for a, b in zip(r1, r2, strict=True)])
        second = compared(r2)
        for episode, a, b in zip(group.episodes, first, second, strict=True):
            signals.append(on_parts(episode, {attempt_tag(1): a, attempt_tag(2): b}))
    return signals


@writes("policy", DISTILLED)
def self_distilled(
    turn_discount: TurnDiscount = 0.1,
    logp_floor: Annotated[
        float, Setting("log-probability without the critique below which a token is left out", "nats", high=0)
    ] = -5.0,
) -> Credit:
    """RLTF-SD: `two_turns`, and y_2 behind the prompt without the critique with A = r_2 - mean_j r_1j, row `DISTILLED`.
    Its old log-probabilities are those of that prompt; tokens below the floor there have weight 0."""

    def known(signal: Signal, logp: Array) -> Signal:
        where = tagged(signal.episode, attempt_tag(2))
        on = (where & (logp >= logp_floor)).astype(np.float32)
        return Signal(adopted(signal.episode, where, logp), signal.advantage, {DISTILLED: on})

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        unaided = []
        for group in groups:
            baseline = float(np.mean([r or 0.0 for r in scores_of(group, FIRST)] or [0.0]))
            for episode in group.episodes:
                gain = episode.scores.get(SECOND, 0.0) - baseline
                unaided += distilled(episode, attempt_tag(2), DISTILLED, gain)
        old = context.rows(unaided, lambda out: out.logp)
        return two_turns(groups, turn_discount) + [known(*both) for both in zip(unaided, old, strict=True)]

    return credit


@writes("policy", IMITATION)
def feedback_modelled(turn_discount: TurnDiscount = 0.1) -> Credit:
    """RLTF-FM: `two_turns`, and c behind the prompt that shows question and answer only, row `IMITATION`."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        said = [distilled(e, CRITIQUE, IMITATION) for g in groups for e in g.episodes]
        return two_turns(groups, turn_discount) + [s for signals in said for s in signals]

    return credit


# ---- loss --------------------------------------------------------------------------------------------


def _weighted(out: Outputs, batch: Batch) -> TokenLoss:
    """-rho_t A_t, not clipped."""
    ratio = log_ratio(out, batch).exp()
    return -batch.advantage * ratio, {"ratio": ratio}


def importance_weighted(mean: MeanOver) -> Objective:
    """-rho_t A_t on both turns."""
    return objective(Term("policy", _weighted, MEANS[mean], proportional=True))


def with_self_distillation(
    distil_weight: DistilWeight = 0.1,
    mean: MeanOver = "sum",
) -> Objective:
    """RLTF-SD: -rho_t A_t on both turns, and distil_weight x the same on y_2 without its help, divided by the number
    of episodes with an attempt."""
    if not distil_weight:
        return importance_weighted(mean) + objective(silent={DISTILLED})

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -batch.advantage * log_ratio(out, batch).exp()

    shared = sharing_denominator(MEANS[mean])
    return importance_weighted(mean) + objective(
        Term(DISTILLED, loss, shared, DISTILLED, distil_weight, proportional=True)
    )


def with_feedback_model(
    critique_weight: Annotated[float, Setting("weight of predicting the critique", low=0)] = 0.1,
    mean: MeanOver = "sum",
) -> Objective:
    """RLTF-FM: -rho_t A_t on both turns, and critique_weight x cross-entropy on the critique. Both are sums over tokens
    (`mean`: "sum") divided by the same number, that of the episodes with an attempt."""
    if not critique_weight:
        return importance_weighted(mean) + imitation(0.0)
    (term,) = imitation(critique_weight).terms
    return importance_weighted(mean) + objective(replace(term, mean=sharing_denominator(MEANS[mean])))


# ---- the recipes -------------------------------------------------------------------------------------


def _three(recipe: str, **settings: float) -> list[Signal]:
    """Credit of three episodes: right at once; wrong, then right; wrong, then no answer found."""
    episodes = (
        example_attempts(1.0),
        example_attempts(0.0, 1.0, between=CRITIQUE),
        example_attempts(0.0, 0.0, between=CRITIQUE, answers=("4", None)),
    )
    whole = {r.name: r for r in RECIPES}[recipe]
    return credited_signals(whole, episodes, settings={f"credit.{k}": v for k, v in settings.items()})


def _turns(recipe: str) -> tuple[ByHand, ...]:
    return (
        ByHand(
            "scores of wrong, then no answer found: -0.1 at last, 0, -0.1",
            lambda: [_three(recipe)[2].episode.scores[name] for name in ("reward", FIRST, SECOND)],
            [-0.1, 0, -0.1],
        ),
        ByHand(
            "first turns: 1, 0 + 0.1 x 1 and 0 + 0.1 x -0.1, minus their mean 1.09 / 3",
            lambda: advantages_of(_three(recipe), attempt_tag(1)),
            [1 - 1.09 / 3, 0.1 - 1.09 / 3, -0.01 - 1.09 / 3],
        ),
        ByHand(
            "second turns 1 and -0.1, minus the mean 0.45 of those who had one",
            lambda: advantages_of(_three(recipe), attempt_tag(2)),
            [0.55, -0.55],
        ),
        ByHand(
            "no discounted second turn: 1, 0, 0 minus 1/3",
            lambda: advantages_of(_three(recipe, turn_discount=0.0), attempt_tag(1)),
            [2 / 3, -1 / 3, -1 / 3],
        ),
    )


PAPER = Paper("Expanding the Capabilities of Reinforcement Learning via Text Feedback", "2602.02482", 2026)
DEPARTURES = (
    "the critic is the policy itself by default (--set rollout.critic=teacher, start or remote for another), and what it writes is "
    "not itself reinforced",
    "the critic is told the task's own feedback; that it reveals no answer is asked of it, not enforced",
    "no LoRA of its own and the run's learning rate",
)
WITHOUT_SECOND = Reduction("no second attempts: REINFORCE", "reinforce", {"rollout.second": 0.0})

RLTF_SD = Recipe(
    name="rltf_sd",
    paper=PAPER,
    published_lr=2e-5,
    idea="A wrong answer is criticised, and the model answers again with the critique in view. "
    "The second answer is then also learnt as an answer to the bare question, by how much better it did than first answers do. "
    "So what the critique made easy becomes part of the first attempt.",
    equation="L = - sum rho_t A_t over both turns, A = R_turn - mean of the turn, R_1 = r_1 + gamma r_2;  "
    "- c (r_2 - mean_j r_1j) rho_t(y_2 | x)",
    departures=DEPARTURES,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(self_distilled),
        "objective": stage(with_self_distillation),
    },
    claim="Single-turn accuracy after training exceeds that of two-turn GRPO; the second turn's own mean as a baseline is worse.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        *_turns("rltf_sd"),
        ByHand(
            "distilled: second turns 1 and -0.1, minus the mean 1/3 of first turns",
            lambda: advantages_of(_three("rltf_sd"), attempt_tag(2), DISTILLED),
            [2 / 3, -0.1 - 1 / 3],
        ),
        ByHand(
            "tokens of log-probability -1 are left out above that floor, and only above it",
            lambda: [
                len(weights_of(_three("rltf_sd", logp_floor=floor), attempt_tag(2), DISTILLED))
                for floor in (-0.9, -1.1)
            ],
            [0, 2],
        ),
        OffPolicy(
            "no clip: ratios 3 and 0.2 of both signs; one distilled episode shares the denominator of two",
            ratio=(3.0, 0.2, 3.0, 0.2, 0.5),
            advantage=(1.0, 1.0, -1.0, -1.0, 0.75),
            lengths=(2, 2, 1),
            weights={"policy": (1, 1, 1, 1, 0), DISTILLED: (0, 0, 0, 0, 1)},
            loss=(-3.0 - 0.2 + 3.0 + 0.2) / 2 - 0.1 * 0.375 / 2,
            gradient=(-1.5, -0.1, 1.5, 0.1, -0.1 * 0.375 / 2),
        ),
        WITHOUT_SECOND,
        Reduction(
            "without the distillation it is two-turn REINFORCE, as RLTF-FM without its critiques",
            "rltf_fm",
            {"objective.distil_weight": 0.0},
            {"objective.critique_weight": 0.0},
        ),
    ),
)

RLTF_FM = Recipe(
    name="rltf_fm",
    paper=PAPER,
    published_lr=2e-5,
    idea="A wrong answer is criticised by someone who knows what came of it, and the model answers again. "
    "Beside being reinforced in both turns, the model learns to predict the critique from question and answer alone. "
    "It can then criticise itself when nobody else does.",
    equation="L = - sum rho_t A_t over both turns;  - lambda sum_t log pi(c_t | question, answer)",
    departures=DEPARTURES,
    stages={
        "rollout": stage(Refine),
        "reward": stage(formatted),
        "credit": stage(feedback_modelled),
        "objective": stage(with_feedback_model),
    },
    exam={"rollout.critic": "policy", "rollout.ask": CRITICISE_UNAIDED},  # it criticises itself, told nothing
    claim="With self-critique at test time accuracy exceeds that of the single turn, and of two-turn GRPO.",
    manipulation=(Manipulated("one episode in twenty is mended", "attempts/wrong_right", 0.05),),
    examples=(
        *_turns("rltf_fm"),
        ByHand(
            "both critiques are imitated",
            lambda: weights_of(_three("rltf_fm"), CRITIQUE, IMITATION),
            [1, 1],
        ),
        OffPolicy(
            "no clip on two episodes; a critique of two tokens, at exp(-1) and 2 exp(-1), summed over the same two",
            ratio=(3.0, 0.2, 1.0, 2.0),
            advantage=(1.0, -1.0, 0.0, 0.0),
            lengths=(1, 1, 2),
            weights={"policy": (1, 1, 0, 0), IMITATION: (0, 0, 1, 1)},
            loss=(-3.0 + 0.2) / 2 + 0.1 * (1 + 1 - math.log(2)) / 2,
            gradient=(-1.5, 0.1, -0.05, -0.05),
        ),
        OffPolicy(
            "four attempts of one token, two critiques of five: a critique's token counts 0.1 / 4, not 0.1 / 10",
            ratio=(2.0, 1.0, 1.0, 0.5) + (1.0,) * 9 + (0.5,),
            advantage=(1.0, 0.0, 0.0, -1.0) + (0.0,) * 10,
            lengths=(1, 1, 1, 1, 5, 5),
            weights={"policy": (1,) * 4 + (0,) * 10, IMITATION: (0,) * 4 + (1,) * 10},
            loss=(-2.0 + 0.5) / 4 + 0.1 * (10 + math.log(2)) / 4,
            gradient=(-0.5, 0.0, 0.0, 0.125) + (-0.025,) * 10,
        ),
        WITHOUT_SECOND,
    ),
)
RECIPES = (RLTF_SD, RLTF_FM)
