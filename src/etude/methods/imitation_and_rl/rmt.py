"""RMT: think before the next token of a text, within a shrinking budget, and go on reading the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.credit.group import constant, standardised
from etude.credit.imitate import imitate, tagged
from etude.curriculum.base import SourceMixture
from etude.objective.hybrid import Imitation, imitation
from etude.objective.policy import Beta, kl_to_start, plain
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import solution
from etude.settings import Setting, stage
from etude.types import Array, Episode, Group, Message, Request, Signal, Task, Verdict


class Scored(SourceMixture):
    """The task source's own tasks, each with the entropies of its text under the model the run began with
    (`meta["entropy"]`, one per token)."""

    def next(self, n: int, context: Any) -> list[Request]:
        tasks = [context.tasks.draw(Request(), context.drawn + i, context.seed) for i in range(n)]
        shown = [solution(task, context.policy.renderer) for task in tasks]
        signals = [imitate(e, tagged(e, "demonstration")) for e in shown]
        model = context.auxiliary["reference"]
        rows = context.rows(signals, lambda out: out.entropy, {"entropy"}, policy=model)
        found = [row[s.weights["imitation"] != 0] for row, s in zip(rows, signals, strict=True)]
        return [
            Request(task=replace(t, meta={**t.meta, "entropy": e})) for t, e in zip(tasks, found, strict=True)
        ]


ASK = "Continue the text. Think in at most {budget} tokens before you write the next word."


def think_and_guess(words: Array, place: int, budget: int, tags: tuple[str, str]) -> Any:
    """A rollout: the text before `place`, a thought of at most twice the budget, one token. Right iff that is
    the text's own. Notes: `spot`, `thought` and `budget` (tokens)."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        opening, closing = map(conversation.generator.renderer.tokenizer.encode, tags)
        *before, last = task.prompt
        asked = f"{last.content}\n\n{ASK.format(budget=budget)}"
        conversation.user((*before, Message(last.role, asked)))
        conversation.force_prefix(np.concatenate([words[:place], opening]))
        await conversation.reply(tag="thought", max_tokens=2 * budget)
        thought, stop = sum(len(s) for s in conversation.spans if s.tag == "thought"), conversation.stop
        conversation.force_prefix(closing)
        await conversation.reply(tag="guess", max_tokens=1)
        conversation.stop = stop
        right = conversation.spans[-1].tokens.tolist() == [int(words[place])]
        conversation.verdict(Verdict(float(right), right))
        return conversation.done(spot=place, thought=thought, budget=budget)

    return rollout


async def guesses(
    rollouts: Any, words: Array, places: Sequence[int], budget: int, tags: tuple[str, str]
) -> list[Episode]:
    """`samples` thoughts, each with a guess, before each of the `places` of int32[n] `words`."""
    plays = [
        rollouts.play(n * rollouts.samples + i, think_and_guess(words, place, budget, tags))
        for n, place in enumerate(places)
        for i in range(rollouts.samples)
    ]
    return [e for found in await asyncio.gather(*plays) for e in found]


def bins(early: float, late: float, begin: float, end: float, progress: float) -> Array:
    """Probabilities of easy, medium and hard: (early, rest) until `begin`, (rest, late) from `end`, linear between."""
    first = np.array([early, (1 - early) / 2, (1 - early) / 2])
    last = np.array([(1 - late) / 2, (1 - late) / 2, late])
    part = float(np.clip((progress - begin) / max(end - begin, 1e-9), 0, 1))
    return (1 - part) * first + part * last


def spots(
    entropy: Array | None, length: int, number: int, chances: Array, rng: np.random.Generator
) -> list[int]:
    """Up to `number` places in a text of `length` tokens, ascending: a third of the text ranked by entropy is
    drawn, then a token within it; any token alike where no entropies are known."""
    third = rng.choice(3, size=number, p=chances)
    rank = ((third + rng.random(number)) / 3 * length).astype(int)
    order = rng.permutation(length) if entropy is None else np.argsort(entropy, kind="stable")
    return sorted({int(order[r]) for r in rank})


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
    """At each drawn place of a text, `samples` times a thought and then one predicted token; and the text itself
    (RMT, arXiv 2509.24375)."""

    async def group_rollout(rollouts: Any) -> list[Episode]:
        shown = rollouts.demonstrate()
        words = shown.spans[-1].tokens
        budget = max(least, int(start * shrink**rollouts.progress))
        chances = bins(early, late, begin, end, rollouts.progress)
        rng = seeds.generator(rollouts.key, "spots")
        places = spots(rollouts.task.meta.get("entropy"), len(words), positions, chances, rng)
        episodes = await guesses(rollouts, words, places, budget, (opening, closing))
        return [*episodes, replace(shown, notes={**shown.notes, "spots": tuple(places)})]

    return group_rollout


def triangle(thought: int, budget: int) -> float:
    """Rises to 1 at the budget, falls to 0 at twice the budget."""
    return max(0.0, 1 - abs(thought / budget - 1))


def budgeted(
    share: Annotated[float, Setting("share of the length reward", low=0, high=1)] = 0.2,
    most: Annotated[float, Setting("length reward at the budget", low=0)] = 1.0,
):
    """(1 - w) [the token was right] + w r_max triangle(thought) (RMT, arXiv 2509.24375)."""

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
    """(r - mean) / (std + epsilon) among the attempts at one token; imitation of the text's other tokens
    (RMT, arXiv 2509.24375)."""

    def credit(groups: Sequence[Group], context: Any = None) -> list[Signal]:
        signals = []
        for group in groups:
            for spot in dict.fromkeys(e.notes["spot"] for e in group.episodes):
                mine = [e for e in group.episodes if e.notes["spot"] == spot]
                advantage = standardised(np.array([e.reward for e in mine]), epsilon)
                signals += [constant(e, float(a)) for e, a in zip(mine, advantage, strict=True)]
            for whole in group.demonstrations:
                text = tagged(whole, "demonstration")
                text[np.flatnonzero(text)[list(whole.notes["spots"])]] = False
                signals.append(imitate(whole, text))
        return signals

    return credit


def predict_and_read(next_token: Imitation = 0.1, beta: Beta = 0.0) -> Objective:
    """-A log pi (token mean) + beta KL + lambda cross-entropy."""
    return plain("token") + kl_to_start(beta) + imitation(next_token)


RECIPE = Recipe(
    name="rmt",
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
        "group_rollout": stage(think_and_predict),
        "reward": stage(budgeted),
        "credit": stage(by_spot),
        "objective": stage(predict_and_read),
    },
    needs=("answer", "text"),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="Dropping next-token prediction hurts next-token accuracy most, and budgets shorten thoughts without loss.",
    examples=(
        ByHand(
            "thoughts of 0, 4, 8, 12 and 20 on a budget of 8",
            lambda: [triangle(n, 8) for n in (0, 4, 8, 12, 20)],
            [0, 0.5, 1, 0.5, 0],
        ),
        ByHand("halfway through the curriculum", lambda: bins(0.6, 0.6, 0.3, 0.7, 0.5), [0.4, 0.2, 0.4]),
        Reduction(
            "no token thought about: next-token prediction", "sft", {"group_rollout.positions": 0}, scale=0.1
        ),
    ),
)
