"""RMT, reinforcement mid-training (arXiv 2509.24375): before some tokens of a text the model thinks, within a budget that
shrinks over the run, and is rewarded when it then predicts the token. Tokens get harder over the run, by their entropy
under the starting model; all other tokens are learned as in pre-training."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.group import constant, standardised
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.curriculum.base import SourceMixture
from etude.fixtures.examples import EXAMPLE_TASK
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    beyond_prompt,
    example_answers,
    example_demonstration,
    given_stage,
)
from etude.objective.entropy import exact_entropy
from etude.objective.hybrid import ImitationWeight, imitation
from etude.objective.policy import KLWeight, kl_to_start, plain
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED, solution
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage, Reward, Rollout
from etude.types import Array, Episode, Group, Message, Request, Signal, Task, Verdict

ENTROPY = "entropy"  # of a task's meta: the entropy of each token of its text under the starting model
SPOT, THOUGHT, BUDGET = (
    "spot",
    "thought",
    "budget",
)  # notes: the token predicted, tokens thought, tokens allowed
SPOTS = "spots"  # note of the text: the tokens that were predicted
THOUGHT_TAG = "thought"

THINK_FIRST = "Continue the text. Think in at most {budget} tokens before you write the next word."


class EntropyScored(SourceMixture):
    """The task source's own tasks, each with the entropies of its text under the model the run began with."""

    def next(self, n: int, context: Context) -> list[Request]:
        tasks = [context.tasks.draw(Request(), context.drawn + i, context.seed) for i in range(n)]
        texts = [solution(task, context.policy.renderer) for task in tasks]
        signals = [imitate(e, tagged(e, DEMONSTRATED)) for e in texts]
        model = context.auxiliary["reference"]
        rows = context.rows(signals, exact_entropy, {"entropy"}, policy=model)
        found = [row[s.weights[IMITATION] != 0] for row, s in zip(rows, signals, strict=True)]
        return [
            Request(task=replace(t, meta={**t.meta, ENTROPY: e})) for t, e in zip(tasks, found, strict=True)
        ]


def bins(early_easy: float, late_hard: float, begin: float, end: float, progress: float) -> Array:
    """Probabilities of easy, medium and hard: (early_easy, rest) until `begin`, (rest, late_hard) from `end`, linear
    between."""
    first = np.array([early_easy, (1 - early_easy) / 2, (1 - early_easy) / 2])
    last = np.array([(1 - late_hard) / 2, (1 - late_hard) / 2, late_hard])
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


def think_and_guess(words: Array, place: int, budget: int, tags: tuple[str, str]) -> Rollout:
    """The text before `place`, a thought of at most twice the budget, one token. Right iff that is the text's own."""

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        opening, closing = map(conversation.generator.renderer.tokenizer.encode, tags)
        *before, last = task.prompt
        asked = f"{last.content}\n\n{THINK_FIRST.format(budget=budget)}"
        conversation.user((*before, Message(last.role, asked)))
        conversation.force_prefix(np.concatenate([words[:place], opening]))
        await conversation.reply(tag=THOUGHT_TAG, max_tokens=2 * budget)
        thought, stop = sum(len(s) for s in conversation.spans if s.tag == THOUGHT_TAG), conversation.stop
        conversation.force_prefix(closing)
        await conversation.reply(tag="guess", max_tokens=1)
        right = conversation.spans[-1].tokens.tolist() == [int(words[place])]
        conversation.verdict(Verdict(float(right), right))
        # An episode of a thought: the guess, of a single token, is always cut off.
        return replace(conversation.done(**{SPOT: place, THOUGHT: thought, BUDGET: budget}), stop=stop)

    return rollout


def think_and_predict(
    positions: Annotated[int, Setting("tokens per text that are thought about", "tokens", low=0)] = 1,
    budget_start: Annotated[int, Setting("B_0, thinking budget at first", "tokens", low=1)] = 16,
    budget_least: Annotated[int, Setting("B_min, least thinking budget", "tokens", low=1)] = 1,
    budget_left: Annotated[float, Setting("g, share of the budget left at the end", low=0.001, high=1)] = 0.2,
    early_easy: Annotated[float, Setting("probability of easy tokens at first", low=0, high=1)] = 0.6,
    late_hard: Annotated[float, Setting("probability of hard tokens at last", low=0, high=1)] = 0.6,
    begin_at: Annotated[
        float, Setting("share of the run at which tokens begin to get harder", low=0, high=1)
    ] = 0.3,
    end_at: Annotated[float, Setting("share of the run at which they are hardest", low=0, high=1)] = 0.7,
    opening: Annotated[str, Setting("what opens a thought")] = "<think>",
    closing: Annotated[str, Setting("what closes a thought")] = "</think>",
) -> GroupRolloutStage:
    """At each drawn place of a text, `samples` times a thought and then one predicted token, within a budget of
    B_t = max(B_min, floor(B_0 g^(t/T))) tokens; and the text itself."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        text = rollouts.demonstrate()
        words = text.spans[-1].tokens
        budget = max(budget_least, int(budget_start * budget_left**rollouts.progress))
        chances = bins(early_easy, late_hard, begin_at, end_at, rollouts.progress)
        rng = seeds.generator(rollouts.key, "spots")
        places = spots(rollouts.task.meta.get(ENTROPY), len(words), positions, chances, rng)
        plays = [
            rollouts.play(n * rollouts.samples + i, think_and_guess(words, place, budget, (opening, closing)))
            for n, place in enumerate(places)
            for i in range(rollouts.samples)
        ]
        guesses = [e for found in await asyncio.gather(*plays) for e in found]
        return [*guesses, replace(text, notes={**text.notes, SPOTS: tuple(places)})]

    return group_rollout


def triangle(thought: int, budget: int) -> float:
    """Rises to 1 at the budget, falls to 0 at twice the budget."""
    return max(0.0, 1 - abs(thought / budget - 1))


def guess_within_budget(
    length_share: Annotated[float, Setting("w, share of the length reward", low=0, high=1)] = 0.2,
    max_length_reward: Annotated[float, Setting("r_max, length reward at the budget", low=0)] = 1.0,
) -> Reward:
    """r = (1 - w) [guess = token] + w r_max triangle(|thought| / B_t)."""

    def reward(episode: Episode) -> dict[str, float]:
        right = float(episode.correct)
        length = max_length_reward * triangle(episode.notes[THOUGHT], episode.notes[BUDGET])
        return {
            "reward": (1 - length_share) * right + length_share * length,
            "match": right,
            "thought": episode.notes[THOUGHT],
        }

    return reward


@writes("policy", IMITATION)
def by_spot(epsilon: Annotated[float, Setting("added to the standard deviation", low=0)] = 1e-4) -> Credit:
    """(r - mean) / (std + epsilon) among the attempts at one token; imitation of the text's other tokens."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            for spot in dict.fromkeys(e.notes[SPOT] for e in group.episodes):
                mine = [e for e in group.episodes if e.notes[SPOT] == spot]
                advantage = standardised(np.array([e.reward for e in mine]), epsilon)
                signals += [constant(e, float(a)) for e, a in zip(mine, advantage, strict=True)]
            for text in group.demonstrations:
                read = tagged(text, DEMONSTRATED)
                read[np.flatnonzero(read)[list(text.notes[SPOTS])]] = False
                signals.append(imitate(text, read))
        return signals

    return credit


def predict_and_read(imitation_weight: ImitationWeight = 0.1, kl_weight: KLWeight = 0.0) -> Objective:
    """-A log pi (token mean) + beta KL - lambda log pi(x_t) of the other tokens (token mean)."""
    return plain("token") + kl_to_start(kl_weight) + imitation(imitation_weight)


def _rewards() -> list[float]:
    """A right guess after 4 tokens and a wrong one after 8, both on a budget of 8."""
    attempts = example_answers((1.0, (2,)), (0.0, (3,))).episodes
    noted = [replace(e, notes={THOUGHT: n, BUDGET: 8}) for e, n in zip(attempts, (4, 8), strict=True)]
    return [given_stage(RECIPE, "reward")(e)["reward"] for e in noted]


def _rows() -> list[list[float]]:
    """Advantages and imitation weights of guesses at token 2 (rewards 3, 1) and token 0 (reward 5) of a text of 3."""
    attempts = example_answers((3.0, (2,)), (5.0, (3,)), (1.0, (4,))).episodes
    noted = [replace(e, notes={SPOT: spot}) for e, spot in zip(attempts, (2, 0, 2), strict=True)]
    text = replace(example_demonstration((7, 8, 9)), notes={SPOTS: (0, 2)})
    group = Group(text.task, tuple(noted), demonstrations=(text,))
    signals = given_stage(RECIPE, "credit", epsilon=1.0)([group], GivenContext())
    return [beyond_prompt(signals, name) for name in ("advantage", IMITATION)]


def _scored() -> list[float]:
    """The entropies that the curriculum lays beside a task whose solution has two tokens, of which the model that the run
    began with has entropies 1.5 and 0.5."""
    task = Task((Message("user", "q"),), EXAMPLE_TASK.check, answer="b", reference="b")
    context = GivenContext(auxiliary={"reference": GivenModel(entropy=[1.5, 0.5])})
    context.tasks = SimpleNamespace(draw=lambda request, index, seed: task)
    (request,) = given_stage(RECIPE, "curriculum").next(1, context)
    assert request.task is not None
    return list(request.task.meta[ENTROPY])


RECIPE = Recipe(
    name="rmt",
    paper=Paper("Reinforcement Mid-Training", "2509.24375", 2025),
    published_lr=1e-6,
    idea="A text is training ground for reasoning: before some of its tokens the model thinks, and is rewarded when it then guesses the token. "
    "Tokens get harder over the run and the thinking budget smaller. "
    "All other tokens are learned as in pre-training.",
    equation="r = (1-w) [guess = token] + w triangle(|thought| / B_t),  B_t = max(B_min, floor(B_0 g^(t/T)));  "
    "L = - mean A log pi + beta KL - lambda mean over the other tokens log pi(x_t)",
    departures=(
        "could not be verified: no code is public; what is here follows a third party's notes on the paper",
        "the text is a task's reference under its prompt; a third of its own tokens, ranked by entropy, is easy, medium or hard (guess)",
        "the harness closes the thought, at its end token or at twice the budget, and one sampled token is the guess",
        "B_0 is 16 tokens, where the paper has 800 of 2048; guess: w = 0.2, r_max = 1, beta = 0, bins 60/20/20 to 20/20/60",
    ),
    stages={
        "curriculum": stage(EntropyScored),
        "group_rollout": stage(think_and_predict),
        "reward": stage(guess_within_budget),
        "credit": stage(by_spot),
        "objective": stage(predict_and_read),
    },
    needs=("answer", "text"),
    auxiliary={"reference": AuxiliaryModel("start")},
    claim="Dropping next-token prediction hurts next-token accuracy most, and budgets shorten thoughts without loss.",
    manipulation=(Manipulated("thoughts get shorter by two tokens", "score/thought", 2.0, read="range"),),
    examples=(
        ByHand("the entropies of a text's own two tokens, behind its prompt", _scored, [1.5, 0.5]),
        ByHand(
            "thoughts of 0, 4, 8, 12 and 20 on a budget of 8",
            lambda: [triangle(n, 8) for n in (0, 4, 8, 12, 20)],
            [0, 0.5, 1, 0.5, 0],
        ),
        ByHand("right after half the budget; wrong after all of it", _rewards, [0.8 + 0.2 * 0.5, 0.2 * 1.0]),
        ByHand("halfway through the curriculum", lambda: bins(0.6, 0.6, 0.3, 0.7, 0.5), [0.4, 0.2, 0.4]),
        ByHand("at its start", lambda: bins(0.6, 0.7, 0.3, 0.7, 0.1), [0.6, 0.2, 0.2]),
        # At token 2: (3 - 2) / (1 + 1); at token 0 there is nothing to compare with. Token 1 is read.
        ByHand(
            "rewards 3 and 1 at one token, 5 at another, epsilon 1",
            _rows,
            [[0.5, -0.5, 0, 0, 0, 0], [0, 0, 0, 0, 1, 0]],
        ),
        # -A log pi: (1 - ln 2) - (1 + ln 2), over 2. k3 with log ref/pi = -+ ln 2: (1/2 - 1 + ln 2 + 2 - 1 - ln 2) / 2.
        # Imitation: a tenth of 1.
        OffPolicy(
            "praise grown likelier, blame grown rarer, half their KL, a token read",
            ratio=(2.0, 0.5, 1.0),
            advantage=(1.0, -1.0, 0.0),
            weights={"policy": (1, 1, 0), IMITATION: (0, 0, 1)},
            extras={"reference": (-1.0, -1.0, -1.0)},
            loss=-math.log(2) + 0.5 * 0.25 + 0.1,
            gradient=(-0.5 + 0.5 * (1 - 0.5) / 2, 0.5 + 0.5 * (1 - 2) / 2, -0.1),
            settings={"objective.kl_weight": 0.5},
        ),
        Reduction(
            "no token thought about: next-token prediction", "sft", {"group_rollout.positions": 0}, scale=0.1
        ),
    ),
)
