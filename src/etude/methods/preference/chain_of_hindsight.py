"""Chain of Hindsight: good and bad answers are both imitated, each behind words that say which it is.

One text holds both answers of a pair, the second in sight of the first: "a wrong answer: ... a right answer: ...", in either order. Asked for
a right answer afterwards, the model has seen the difference. Chain of Hindsight Aligns Language Models with Feedback, arXiv
2302.02676."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.credit.pairs import Margin, Pairs, answer_of, given_pairs, sampled_pairs
from etude.fixtures.given import GivenContext, example_answers, given_stage
from etude.objective.imitation import cross_entropy
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe
from etude.rollout.pairs import pairs_or_attempts
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Array, Episode, Group, Message, Signal, Span

GOOD, BAD = "A right answer:", "A wrong answer:"
_ORDERS = ("good", "bad", "good bad", "bad good")
"""What one text holds; drawn for each pair, all alike."""


def words_of(episode: Episode) -> Array:
    """int32[n]: the tokens of an answer, its end included."""
    return episode.tokens[answer_of(episode)]


def chained(pair: Sequence[Signal], order: str, marks: dict[str, str], context: Context) -> Signal:
    """The prompt, then each answer of `order` behind its mark, as turns of one conversation; the answers are imitated, and
    nothing else."""
    best = pair[0].episode
    renderer = context.policy.renderer
    sides = dict(zip(("good", "bad"), (s.episode for s in pair), strict=True))
    spans, row, said = list[Span](), list[Array](), list[Message]()
    for number, name in enumerate(order.split()):
        asked = list(best.task.prompt) if not number else []
        *head, last = asked or [Message("user", "")]
        text = f"{last.content}\n\n{marks[name]}" if number == 0 else marks[name]
        turn = [*head, Message("user", text)]
        before = renderer.prompt(turn) if not number else renderer.extend(said, turn, True, 0)[0]
        answer = words_of(sides[name])
        spans += [Span("user", before), Span("assistant", answer, tag=name)]
        row += [np.zeros(len(before)), np.ones(len(answer))]
        said += [*turn, Message("assistant", renderer.decode(answer))]
    weight = np.concatenate(row).astype(np.float32)
    return Signal(replace(best, spans=tuple(spans), player="demonstration"), 0 * weight, {IMITATION: weight})


@writes(IMITATION)
def hindsight(
    good_mark: Annotated[str, Setting("what stands before a better answer")] = GOOD,
    bad_mark: Annotated[str, Setting("what stands before a worse one")] = BAD,
    pairs: Pairs = 1,
    margin: Margin = 1e-6,
) -> Credit:
    """One text for each pair, in an order of `_ORDERS` that is drawn anew at every step."""
    marks = {"good": good_mark, "bad": bad_mark}

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        found = []
        for group in groups:
            signals = given_pairs(group) or sampled_pairs(group, context, pairs, margin)
            for number in range(len(signals) // 2):
                draw = seeds.generator(context.seed, "hindsight", context.step, group.task.key, number)
                order = _ORDERS[int(draw.integers(len(_ORDERS)))]
                found.append(chained(signals[2 * number : 2 * number + 2], order, marks, context))
        return found

    return credit


def laid(order: str) -> list[float]:
    """The imitation weights of a pair of one and two tokens in this order, behind prompts of one token each."""
    context: Any = GivenContext()
    context.policy.renderer.extend = lambda before, said, ended, asks: (np.ones(1, np.int32), False)
    group = example_answers((1.0, (5,)), (0.0, (6, 7)))
    pair = sampled_pairs(group, context, 1, 1e-6)
    signal = chained(pair, order, {"good": GOOD, "bad": BAD}, context)
    assert signal.episode.tokens[1] == (5 if order.startswith("good") else 6)
    return [float(w) for w in signal.weights[IMITATION]]


def made() -> float:
    """How many texts the assembled credit makes of one pair."""
    context: Any = GivenContext()
    context.policy.renderer.extend = lambda before, said, ended, asks: (np.ones(1, np.int32), False)
    return float(len(given_stage(RECIPE, "credit")([example_answers((1.0, (5,)), (0.0, (6, 7)))], context)))


RECIPE: Recipe = Recipe(
    name="chain_of_hindsight",
    paper=Paper("Chain of Hindsight Aligns Language Models with Feedback", "2302.02676", 2023),
    idea="The model imitates good and bad answers, each behind words that say which it is, the second in sight of the first. "
    "So it learns what makes the difference, and can be asked for the good kind. "
    "Examine it with the words of a right answer: --prompt '{question}\n\nA right answer:'.",
    equation="L = - mean_t log pi(y_t | x, mark_1, y_1, mark_2, ..) over the tokens of all answers",
    departures=(
        "one wording of each mark, where the paper has a list of paraphrases",
        "marks are turns of the user's, so that the chat template is kept",
        "neither past tokens are masked (the released default) nor a loss on pre-training text added",
    ),
    stages={
        "group_rollout": stage(pairs_or_attempts),
        "credit": stage(hindsight),
        "objective": stage(cross_entropy),
    },
    claim="Right and wrong traces with their marks beat imitation of the right ones; asked for a bad answer, accuracy drops.",
    manipulation=(Manipulated("texts are imitated", "signal_tokens", 0.5),),
    examples=(
        ByHand("both answers, behind a mark each", lambda: laid("good bad"), [0, 1, 0, 1, 1]),
        ByHand(
            "the other order, and one alone",
            lambda: [*laid("bad good"), *laid("bad")],
            [0, 1, 1, 0, 1, 0, 1, 1],
        ),
        ByHand("one text a pair", made, 1.0),
        OffPolicy(
            "log pi = -1 + ln 2 and -1 - ln 2 are imitated alike; a mark's token is not",
            ratio=(2.0, 0.5, 3.0),
            advantage=(0.0, 0.0, 0.0),
            weights={IMITATION: (1.0, 1.0, 0.0)},
            loss=((1 - math.log(2)) + (1 + math.log(2))) / 2,
            gradient=(-1 / 2, -1 / 2, 0.0),
        ),
    ),
)
