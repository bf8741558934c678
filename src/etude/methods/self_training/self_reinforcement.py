"""Self-reinforcement: a little labelled data makes a model stronger than it was, and the difference between both teaches it on.

After fine-tuning on a few solutions, the model answers better than before. So on problems without labels, what it says now is preferred to
what it said before; it looks through the pairs itself and keeps those in which it finds its own answer better. Round by round, the model of
the last round is the weaker one. Optimizing Language Model's Reasoning Abilities with Weak Supervision, arXiv 2405.04086."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, shown
from etude.credit.judged import shares_of
from etude.credit.pairs import preferred
from etude.fixtures.given import GivenContext, GivenModel, example_answers, example_demonstration, given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.preference.dpo import RECIPE as DPO
from etude.methods.preference.reference_guided import asked
from etude.objective.imitation import imitation
from etude.objective.preference import PAIR, DpoBeta, dpo_loss
from etude.objective.terms import Objective, objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal

STRONG, WEAK = "reference", "weak"
"""The auxiliary models that answer: the policy at the end of the last round, which is DPO's reference too, and the one before it."""


def tuned_then_paired(
    tuning_share: Annotated[
        float,
        Setting(
            "share of the run that imitates the tasks' own solutions, the few that are labelled",
            low=0,
            high=1,
        ),
    ] = 0.3,
) -> GroupRolloutStage:
    """At first the task's solution. Later answers of both models, the stronger one's first; players name them."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        if rollouts.progress < tuning_share:
            return [rollouts.demonstrate()]
        number = max(1, rollouts.samples // 2)
        tables = (replace(rollouts, generator=rollouts.generators[name]) for name in (STRONG, WEAK))
        found = await asyncio.gather(
            *(t.plays(range(k * number, (k + 1) * number)) for k, t in enumerate(tables))
        )
        return [replace(e, player=n) for n, es in zip((STRONG, WEAK), found, strict=True) for e in es]

    return group_rollout


@writes("policy", IMITATION, extras=(PAIR,))
class StrongerFirst:
    """Pairs of an answer of the stronger model and one of the weaker, chosen and rejected, where the stronger model, asked in both
    orders, prefers its own. Demonstrations are imitated. When the tuning is over, and at the end of each of `rounds` equal parts of what is
    left, the stronger model becomes the weaker one, and the policy the stronger; the first weaker model is the one that the run began
    with."""

    reads = frozenset({STRONG})

    def __init__(
        self,
        tuning_share: Annotated[
            float,
            Setting("share of the run at which the policy first becomes the stronger model", low=0, high=1),
        ] = 0.3,
        rounds: Annotated[int, Setting("rounds of preferences", "rounds", low=1, high=1000)] = 2,
        filtered: Annotated[
            bool, Setting("keep pairs whose better answer the stronger model prefers; without, all")
        ] = True,
    ) -> None:
        self.begin, self.rounds, self.filtered = tuning_share, rounds, filtered
        self.round = 0
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        paired = [g for g in groups if any(e.player == STRONG for e in g.episodes)]
        agreed = self._agreed(paired, context)
        signals, kept, right = [], 0, []
        for group, shares in zip(paired, agreed, strict=True):
            both = [[e for e in group.episodes if e.player == name] for name in (STRONG, WEAK)]
            for number, (better, worse) in enumerate(zip(*both, strict=False), 1):
                if np.array_equal(better.tokens, worse.tokens):
                    continue
                i, j = (next(k for k, e in enumerate(group.episodes) if e is own) for own in (better, worse))
                if self.filtered and shares[i, j] <= 0.5:
                    continue
                kept += 1
                if better.correct != worse.correct:
                    right.append(better.correct)
                signals += [_given(preferred(better, 1.0, number)), _given(preferred(worse, -1.0, number))]
        self.last = {"kept": float(kept)} if paired else {}
        if right:
            self.last["right_way"] = float(np.mean(right))
        return [*signals, *shown(groups, PAIR)]

    def _agreed(self, groups: Sequence[Group], context: Context) -> list[Array]:
        if not self.filtered:
            return [np.ones((len(g.episodes), len(g.episodes))) for g in groups]
        model = context.auxiliary[STRONG]
        return shares_of(groups, context, model, lambda task, a, b: asked(task, a, b, "none"))

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Moves both models on where a round is over."""
        left = max(1e-9, 1 - self.begin)
        now = (
            1 + int((context.progress - self.begin) / left * self.rounds)
            if context.progress >= self.begin
            else 0
        )
        if now > self.round:
            if self.round > 0:
                context.auxiliary[WEAK].become(context.auxiliary[STRONG])
            context.auxiliary[STRONG].become(context.policy)
            self.round = now

    def report(self) -> dict[str, float]:
        """The round (0: tuning), how many pairs of the last step were kept, and, of those that a check tells apart, the share that is the
        right way round."""
        return {"round": float(self.round), **self.last}

    def state_dict(self) -> dict[str, Any]:
        return {"round": self.round, "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.round, self.last = state["round"], dict(state["last"])


def _given(signal: Signal) -> Signal:
    """The signal of an answer that the policy did not sample: weights mark the same tokens."""
    spans = tuple(replace(s, sampled=False, logp=None) for s in signal.episode.spans)
    return replace(signal, episode=replace(signal.episode, spans=spans))


def tuning_and_dpo(dpo_beta: DpoBeta = 0.1) -> Objective:
    """Cross-entropy of the demonstrations, and DPO of the pairs."""
    return dpo_loss(dpo_beta) + objective(imitation())


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _pairs(*odds: float, **settings: Any) -> list[list[float]]:
    """Last token and advantage of what is learnt of answers 5, 6 of the stronger model and 7, 6 of the weaker, which judges by these
    log-odds of A over B, answer by answer and in both orders."""
    made = example_answers((1.0, (5,)), (0.0, (6,)), (0.0, (7,)), (0.0, (6,)))
    players = (STRONG, STRONG, WEAK, WEAK)
    told = tuple(replace(e, player=p) for e, p in zip(made.episodes, players, strict=True))
    given = odds or (0.0,) * 12
    model = GivenModel(logp=[x for v in given for x in (v - 3.0, -3.0)])
    context = GivenContext(model, {STRONG: model})
    signals = given_stage(RECIPE, "credit", **settings)([replace(made, episodes=told)], context)
    return [[float(s.episode.tokens[-1]), float(s.advantage[-1])] for s in signals]


def _moved(*progress: float) -> list[float]:
    """The weights of both models after steps at these shares of a run, at each of which the policy's are its number, from 1."""
    credit = given_stage(RECIPE, "credit")
    strong, weak = GivenModel(), GivenModel()
    for number, share in enumerate(progress, 1):
        policy = GivenModel()
        policy.value = float(number)
        context: Any = GivenContext(policy, {STRONG: strong, WEAK: weak}, progress=share)
        credit.observe([], [], context)
    return [strong.value, weak.value]


def _answers(progress: float) -> list[str]:
    said = {STRONG: ["7", "8"], WEAK: ["5", "6"]}
    task = replace(example_question(), reference="3+4=7")
    return [e.text for e in collected(RECIPE, [], said, samples=4, task=task, progress=progress)]


def _shown() -> list[float]:
    group = Group(example_question(), (), demonstrations=(example_demonstration((7, 8)),))
    (signal,) = given_stage(RECIPE, "credit")([group], GivenContext(auxiliary={STRONG: GivenModel()}))
    return signal.weights[IMITATION].tolist()


RECIPE: Recipe = Recipe(
    name="self_reinforcement",
    base=DPO,
    paper=Paper("Optimizing Language Model's Reasoning Abilities with Weak Supervision", "2405.04086", 2024),
    idea="A model is tuned on a few solutions. On problems without labels its answers are then preferred to those of the model that it was before, "
    "where it finds them better itself. "
    "Each round's model is the weaker one of the next.",
    equation="L = - mean log pi(y*_t), then - mean log sigmoid(beta [log pi(y+)/ref(y+) - log pi(y-)/ref(y-)]),  y+ ~ pi_k, y- ~ pi_{k-1}, "
    "kept where pi_k prefers y+",
    stages={
        "group_rollout": stage(tuned_then_paired),
        "reward": stage(optional_verdict),
        "credit": stage(StrongerFirst),
        "objective": stage(tuning_and_dpo),
    },
    auxiliary={WEAK: AuxiliaryModel("start")},
    needs=("answer", "text"),
    departures=(
        "the tuning and the preferences are parts of one run (group_rollout.tuning_share and credit.tuning_share, which should agree); the tasks of "
        "the first part are the labelled ones: run.tasks_per_step and the length of the part say how few",
        "whether its own answer is the better one is read off the model's probabilities of A and B in both orders; the paper lets it judge in words",
        "GUESS: the reference is the stronger model and moves with it; two rounds; both answers' numbers are half of run.group_size",
        "checkers, where there are any, only report how often the pairs are the right way round",
    ),
    confidence="guess",
    claim="Preferences on problems without labels end above the tuning alone, and less so without the filter.",
    manipulation=(Manipulated("pairs are kept", r"credit\.kept", 1, read="max"),),
    examples=(
        ByHand("all pairs of different answers", lambda: _pairs(filtered=False), [[5, 1], [7, -1]]),
        ByHand(
            "5 preferred to 7 in both orders",
            lambda: _pairs(0, 0, 1, -1, 0, 0, 0, 0, 0, 0, 0, 0),
            [[5, 1], [7, -1]],
        ),
        ByHand("undecided: no pair", lambda: len(_pairs()), 0),
        ByHand(
            "after the tuning the policy is the stronger model; a round later the weaker one follows",
            lambda: [*_moved(0.1), *_moved(0.1, 0.3), *_moved(0.1, 0.3, 0.5), *_moved(0.3, 0.7)],
            [0, 0, 2, 0, 2, 0, 2, 1],
        ),
        ByHand(
            "the solution, then two answers of either",
            lambda: float([_answers(0.0), _answers(0.5)] == [["3+4=7"], ["7", "8", "5", "6"]]),
            1,
        ),
        ByHand("the solution is imitated", _shown, [0, 1, 1]),
        ByHand(
            "nothing checked, no reward",
            lambda: given_stage(RECIPE, "reward")(
                replace(example_answers((0.0, (5,))).episodes[0], verdicts=())
            )["reward"],
            0.0,
        ),
        OffPolicy(
            "y+ twice as likely as at the start, y- as likely; beside them a token of a solution, at -1 + log 2",
            ratio=(2.0, 1.0, 2.0),
            advantage=(1.0, -1.0, 0.0),
            lengths=(1, 1, 1),
            weights={"policy": (1, 1, 0), IMITATION: (0, 0, 1)},
            extras={STRONG: (-1.0, -1.0, -1.0), PAIR: (1, 1, 0)},
            loss=math.log1p(2**-0.1) + 1 - math.log(2),
            gradient=(-0.1 / (1 + 2**0.1), 0.1 / (1 + 2**0.1), -1.0),
        ),
        Reduction("tuning alone: SFT", "sft", {"group_rollout.tuning_share": 1.0}),
    ),
)
