"""RMT: think before the next token of a text, within a shrinking budget, and go on reading the rest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import constant, standardised
from etude.credit.imitate import imitate, tagged
from etude.curriculum.hard_tokens import Scored, bins, spots
from etude.objective.hybrid import Imitation, imitation
from etude.objective.policy import Beta, kl_to_start, plain
from etude.objective.terms import Objective
from etude.recipe import ByHand, Companion, Paper, Recipe, Reduction
from etude.rollout.predict import guesses
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal


def think_and_predict(
    positions: Annotated[int, Setting("tokens per text that are thought about", "tokens", low=0)] = 1,
    start: Annotated[int, Setting("thinking budget at first", "tokens", low=1)] = 16,
    least: Annotated[int, Setting("least thinking budget", "tokens", low=1)] = 1,
    shrink: Annotated[float, Setting("share of the budget left at the end", low=0.001, high=1)] = 0.2,
    early: Annotated[float, Setting("probability of easy tokens at first", low=0, high=1)] = 0.6,
    late: Annotated[float, Setting("probability of hard tokens at last", low=0, high=1)] = 0.6,
    begin: Annotated[float, Setting("share of the run after which tokens get harder", low=0, high=1)] = 0.3,
    end: Annotated[float, Setting("share of the run after which they are hardest", low=0, high=1)] = 0.7,
    opening: Annotated[str, Setting("what opens a thought")] = "<think>",
    closing: Annotated[str, Setting("what closes a thought")] = "</think>",
):
    """At each drawn place of a text, `samples` times a thought and then one predicted token; and the text itself."""

    async def gather(table: Any) -> list[Episode]:
        shown = table.demonstrate()
        words = shown.spans[-1].tokens
        budget = max(least, int(start * shrink**table.progress))
        chances = bins(early, late, begin, end, table.progress)
        rng = seeds.generator(table.key, "spots")
        places = spots(table.task.meta.get("entropy"), len(words), positions, chances, rng)
        episodes = await guesses(table, words, places, budget, (opening, closing))
        return [*episodes, replace(shown, notes={**shown.notes, "spots": tuple(places)})]

    return gather


def triangle(thought: int, budget: int) -> float:
    """Rises to 1 at the budget, falls to 0 at twice the budget."""
    return max(0.0, 1 - abs(thought / budget - 1))


def budgeted(
    share: Annotated[float, Setting("share of the length reward", low=0, high=1)] = 0.2,
    most: Annotated[float, Setting("length reward at the budget", low=0)] = 1.0,
):
    """(1 - w) [the token was right] + w r_max triangle(thought)."""

    def reward(episode: Episode) -> dict[str, float]:
        right = float(episode.correct)
        length = most * triangle(episode.notes["thought"], episode.notes["budget"])
        return {
            "reward": (1 - share) * right + share * length,
            "match": right,
            "thought": episode.notes["thought"],
        }

    return reward


def by_spot(epsilon: Annotated[float, Setting("added to the standard deviation", low=0)] = 1e-4):
    """(r - mean) / (std + epsilon) among the attempts at one token; imitation of the text's other tokens."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            for spot in dict.fromkeys(e.notes["spot"] for e in group.episodes):
                mine = [e for e in group.episodes if e.notes["spot"] == spot]
                advantage = standardised(np.array([e.reward for e in mine]), epsilon)
                signals += [constant(e, float(a)) for e, a in zip(mine, advantage, strict=True)]
            for shown in group.demonstrations:
                text = tagged(shown, "demonstration")
                text[np.flatnonzero(text)[list(shown.notes["spots"])]] = False
                signals.append(imitate(shown, text))
        return signals

    return credit


def predict_and_read(next_token: Imitation = 0.1, beta: Beta = 0.0) -> Objective:
    """-A log pi (token mean) + beta KL + lambda cross-entropy."""
    return plain("token") + kl_to_start(beta) + imitation(next_token)


RECIPE = Recipe(
    name="rmt",
    family="sft_rl",
    n=141,
    paper=Paper("Reinforcement Mid-Training", "2509.24375", 2025),
    idea="A text is training ground for reasoning: before some of its tokens the model thinks, and is rewarded when it then guesses the token. "
    "Tokens get harder over the run and the thinking budget smaller. "
    "All other tokens are learned as in pre-training.",
    equation="r = (1-w) [guess = token] + w triangle(|thought| / B_t),  B_t = max(B_min, floor(B_0 g^(t/T)));  "
    "L = - mean A log pi + beta KL - lambda mean over the other tokens log pi(x_t)",
    departures=(
        "the text is a task's reference under its prompt; a third of its own tokens, ranked by entropy, is easy, medium or hard (guess)",
        "the harness closes the thought, at its end token or at twice the budget, and one sampled token is the guess",
        "B_0 is 16 tokens, where the paper has 800 of 2048; guess: w = 0.2, r_max = 1, beta = 0, bins 60/20/20 to 20/20/60",
    ),
    stages={
        "curriculum": stage(Scored),
        "gather": stage(think_and_predict),
        "reward": stage(budgeted),
        "credit": stage(by_spot),
        "objective": stage(predict_and_read),
    },
    needs=("answer", "text"),
    companions={"reference": Companion("start")},
    claim="Dropping next-token prediction hurts next-token accuracy most, and budgets shorten thoughts without loss.",
    examples=(
        ByHand(
            "thoughts of 0, 4, 8, 12 and 20 on a budget of 8",
            lambda: [triangle(n, 8) for n in (0, 4, 8, 12, 20)],
            [0, 0.5, 1, 0.5, 0],
        ),
        ByHand("halfway through the curriculum", lambda: bins(0.6, 0.6, 0.3, 0.7, 0.5), [0.4, 0.2, 0.4]),
        Reduction("no token thought about: next-token prediction", "sft", {"gather.positions": 0}, scale=0.1),
    ),
)
