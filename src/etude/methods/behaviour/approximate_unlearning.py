"""Approximate unlearning: a text is forgotten by learning what somebody who never read it would have said.

Who's Harry Potter? (Eldan & Russinovich, arXiv 2310.02238). A reinforced model is trained further on the text to be forgotten, and so
shows what is peculiar to it. `anchors` give every name of the text a generic one; the start reads the text with the names replaced. At
each token, on logits,

    v_generic = v_start(generic text) - alpha ReLU(v_reinforced(text) - v_start(generic text)),    label = argmax v_generic

and the policy, which reads the text as it is, learns the labels. A name that stood in the text before has no label any more, and what it
was replaced by may not be a label after it: else the model would tell of two people.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.errors import UserError
from etude.fixtures.given import (
    GivenContext,
    GivenModel,
    Letters,
    beyond_prompt,
    example_demonstration,
    given_stage,
)
from etude.methods.imitation.masked_thought import READ, misread
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.models.policy import Policy
from etude.objective.imitation import cross_entropy
from etude.objective.policy import MeanOver
from etude.objective.terms import Objective, objective
from etude.recipe import AuxiliaryModel, ByHand, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrate import DEMONSTRATED
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.text.chat_template import Renderer
from etude.types import Array, Episode, Group, Message, Signal, Span, Task

REINFORCED = "reinforced"

# ---- the text, and the same text with generic names --------------------------------------------------


def dictionary(anchors: str) -> dict[str, str]:
    """{name: generic name} of NAME=GENERIC;NAME=GENERIC;... UserError where a part is not like that."""
    found = {}
    for part in filter(None, (text.strip() for text in anchors.split(";"))):
        name, generic = (text.strip() for text in part.partition("=")[::2])
        if not (name and generic):
            raise UserError(
                f"credit.anchors holds '{part}'; each must read NAME=GENERIC, as in Anna=Mary;Oslo=a city"
            )
        found[name] = generic
    return found


@dataclass(frozen=True)
class Aligned:
    """A text of n tokens, its generic form of m, and for each of the n which of the m stands in its place (-1: none, and no label).
    `barred`: the tokens that may not be its label."""

    words: Array  # int32[n]
    generic: Array  # int32[m]
    at: Array  # int64[n]
    barred: tuple[tuple[int, ...], ...]


def aligned(text: str, names: dict[str, str], encode: Callable[[str], Array]) -> Aligned:
    """Tokens of the pieces between names, which are the same in both texts, and of the names, of which the first token alone is
    aligned, and only where the name stands for the first time."""
    any_name = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    pieces = re.split(rf"(\s?\b(?:{any_name})\b)", text) if names else [text]
    words: list[int] = []
    generic: list[int] = []
    at: list[int] = []
    barred: list[tuple[int, ...]] = []
    seen: dict[str, int] = {}  # name -> the first token of what it is replaced by
    for number, piece in enumerate(pieces):
        name = piece.strip()
        is_name = number % 2 == 1
        theirs = encode(piece[: len(piece) - len(name)] + names[name]) if is_name else encode(piece)
        own = encode(piece)
        at += (
            [len(generic) if name not in seen else -1] + [-1] * (len(own) - 1)
            if is_name
            else list(range(len(generic), len(generic) + len(own)))
        )
        barred += [tuple(seen.values())] * len(own)
        words += own.tolist()
        generic += theirs.tolist()
        if is_name:
            seen.setdefault(name, int(theirs[0]))
    return Aligned(
        np.array(words, np.int32), np.array(generic, np.int32), np.array(at, np.int64), tuple(barred)
    )


def labels(start: Array, reinforced: Array, text: Aligned, alpha: float) -> Array:
    """int64[n], -1 for none: argmax of v_start - alpha ReLU(v_reinforced - v_start); f32[m, V] `start` on the generic text, f32[n, V]
    `reinforced` on the text itself."""
    found = np.full(len(text.words), -1, np.int64)
    for t in np.flatnonzero(text.at >= 0):
        base = start[text.at[t]]
        v = base - alpha * np.maximum(reinforced[t] - base, 0)
        v[list(text.barred[t])] = -np.inf
        found[t] = int(np.argmax(v))
    return found


# ---- credit ------------------------------------------------------------------------------------------


def laid_out(task: Task, prompt: Array, words: Array) -> Signal:
    """A demonstration of these tokens."""
    spans = (Span("user", prompt, tag="prompt"), Span("assistant", words.astype(np.int32), tag=DEMONSTRATED))
    episode = Episode(task, spans, player=DEMONSTRATED, scores={"reward": 1.0})
    return imitate(episode, tagged(episode, DEMONSTRATED))


def logits_of(signal: Signal, context: Context, model: Policy) -> Array:
    """f32[n, V]: the logits from which each demonstrated token is predicted."""

    def read(out: Outputs) -> Tensor:
        assert out.hidden is not None
        return out.logits(torch.arange(len(out.hidden), device=out.hidden.device))

    (rows,) = context.rows([signal], read, {"hidden"}, policy=model)
    return rows[signal.weights[IMITATION] != 0]


@writes(IMITATION, extras=(READ,))
def generic_labels(
    anchors: Annotated[str, Setting("names and generic ones, NAME=GENERIC, joined by ;")] = "",
    alpha: Annotated[
        float, Setting("how strongly what the reinforced model prefers is avoided", low=0)
    ] = 5.0,
    forgets: Annotated[str, Setting("kind of the tasks whose texts are forgotten; empty: all")] = "",
    retain_weight: Annotated[float, Setting("weight of the other texts, which are imitated", low=0)] = 0.0,
    reinforce_passes: Annotated[
        int, Setting("updates of the reinforced model on a step's texts before it is asked", low=0, high=100)
    ] = 3,
) -> Credit:
    """The texts to be forgotten, with the labels in place of their tokens; what is read before them stays (`READ`)."""
    names = dictionary(anchors)

    def translated(text: str) -> str:
        for name in sorted(names, key=len, reverse=True):
            text = re.sub(rf"\b{re.escape(name)}\b", names[name], text)
        return text

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        shown = [g for g in groups if g.demonstrations]
        forgotten = [g.task for g in shown if not forgets or g.task.kind == forgets]
        renderer: Renderer = context.policy.renderer
        texts = [aligned(t.reference or t.answer or "", names, renderer.tokenizer.encode) for t in forgotten]
        own = [laid_out(t, renderer.prompt(t.prompt), a.words) for t, a in zip(forgotten, texts, strict=True)]
        reinforced = context.auxiliary[REINFORCED]
        for _ in range(reinforce_passes if own else 0):
            reinforced.learn(cross_entropy(), own, context.step, context.progress)
        signals = []
        for task, text, mine in zip(forgotten, texts, own, strict=True):
            asked = [Message(m.role, translated(m.content)) for m in task.prompt]
            other = laid_out(task, renderer.prompt(asked), text.generic)
            start = logits_of(other, context, context.auxiliary["reference"])
            found = labels(start, logits_of(mine, context, reinforced.policy), text, alpha)
            new = laid_out(task, mine.episode.spans[0].tokens, np.where(found >= 0, found, text.words))
            on = np.concatenate([np.zeros(len(mine.advantage) - len(found)), found >= 0]).astype(np.float32)
            read = mine.episode.tokens.astype(np.float32)
            signals.append(replace(new, weights={IMITATION: on}, extras={READ: read}))
        for group in shown if forgets else ():
            if group.task.kind != forgets and retain_weight:
                for episode in group.demonstrations:
                    kept = imitate(episode, tagged(episode, DEMONSTRATED), retain_weight)
                    signals.append(replace(kept, extras={READ: episode.tokens.astype(np.float32)}))
        return signals

    return credit


def on_what_was_read(mean: MeanOver = "token") -> Objective:
    """-log pi(label_t | the text before it)."""
    return replace(cross_entropy(mean) + objective(extras={READ}), corrupt=misread)


# ---- the recipe --------------------------------------------------------------------------------------

NAMED = aligned("An ran. An sat", {"An": "Bo"}, Letters().encode)


def _labels() -> list[int]:
    """Of two tokens over three words. The start prefers word 0, then word 1. The reinforced model finds word 0 likelier by 1, so at
    alpha 5 it loses 5; at the second token it prefers what the start does not, word 2, which is lowered, and word 1 is barred."""
    text = Aligned(np.zeros(2, np.int32), np.zeros(2, np.int32), np.arange(2), ((), (1,)))
    start, reinforced = np.array([[2.0, 1, 0], [1, 2, 0.5]]), np.array([[3.0, 1, 0], [0, 2, 4]])
    return [*labels(start, reinforced, text, 5.0).tolist(), *labels(start, reinforced, text, 0.0).tolist()]


def _credited() -> list[list[float]]:
    """A solution of two letters; both models give three words the logits 0, 2, 1, so every label is 1. The reinforced model is taught
    twice."""
    model = GivenModel(hidden=[[0.0, 2.0, 1.0]] * 2)
    context = GivenContext(auxiliary={"reference": model, REINFORCED: model})
    shown = example_demonstration("ab")
    task = replace(shown.task, prompt=(Message("user", "?"),), reference="ab")
    group = Group(task, (), demonstrations=(shown,))
    signals = given_stage(RECIPE, "credit", reinforce_passes=2)([group], context)
    return [
        signals[0].episode.tokens[1:].tolist(),
        beyond_prompt(signals, IMITATION),
        beyond_prompt(signals, READ),
        [len(model.lessons), 0],
    ]


RECIPE: Recipe = Recipe(
    name="approximate_unlearning",
    base=SFT,
    paper=Paper("Who's Harry Potter? Approximate Unlearning in LLMs", "2310.02238", 2023),
    published_lr=1e-6,
    idea="To forget a text, the model learns to go on in it as somebody would who never read it. What that is, a second model shows: it was "
    "trained on the text even more, and whatever it prefers more than before is peculiar to the text and avoided. Names are replaced by "
    "generic ones where the labels are looked up.",
    equation="y_t = argmax [v_0(generic) - alpha ReLU(v_+(text) - v_0(generic))];  L = - mean_t log pi(y_t | text before t)",
    confidence="memory",
    departures=(
        "the reinforced model is trained on each step's texts just before it is asked about them, where the paper trains it to its end first",
        "labels stay in the words of the generic text; the first token of a name alone is aligned with that of its replacement",
        "no code is public, only a model; the dictionary of names is the user's, where the paper has a language model write it",
        "texts of other kinds may be imitated meanwhile (retain_weight), which the paper does not do",
    ),
    stages={"credit": stage(generic_labels), "objective": stage(on_what_was_read)},
    auxiliary={"reference": AuxiliaryModel("start"), REINFORCED: AuxiliaryModel("copy", lr=3.0)},
    needs=("answer", "text"),
    claim="A memorised text is completed no better than by a model that never read it, and other texts are predicted as well as before.",
    unchecked="every text to be forgotten is taught by its labels",
    examples=(
        ByHand(
            "of a name that comes twice, both times of two tokens, the first token of the first alone is aligned",
            lambda: [NAMED.at.tolist(), [len(b) for b in NAMED.barred]],
            [[0, -1, *range(2, 7), -1, -1, -1, *range(10, 14)], [0] * 2 + [1] * 12],
        ),
        ByHand("labels at alpha 5, and at alpha 0, where they are the start's own", _labels, [1, 0, 0, 0]),
        ByHand("tokens, weights, what is read, lessons", _credited, [[1, 1], [1, 1], [97, 98], [2, 0]]),
        OffPolicy(
            "a label at probability 2/e, another at 1/2e, and a token without one",
            ratio=(2.0, 0.5, 1.0),
            advantage=(0.0, 0.0, 0.0),
            weights={IMITATION: (1.0, 1.0, 0.0)},
            extras={READ: (1, 1, 1)},
            loss=((1 - math.log(2)) + (1 + math.log(2))) / 2,
            gradient=(-1 / 2, -1 / 2, 0.0),
        ),
        Reduction(
            "nothing of the kind that is forgotten: SFT",
            "sft",
            {"credit.forgets": "no such kind", "credit.retain_weight": 1.0},
        ),
    ),
)
