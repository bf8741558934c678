"""Self-J: a model becomes the judge of its own answers, with a reference in view at first and without one at last.

Labels cost no person's time: each answer of the model is rated by the model itself, the reference in view, and by how like the
reference it is; both together are a digit. One judge learns to give that digit twice, when shown the reference and when not, and what
it says without is pulled towards what it says with it. What is left is a judge that needs no reference: it ranks answers, and tells
which had better not be given (`selective`). Self-Judge: Selective Instruction Following with Alignment Self-Evaluation, arXiv
2409.00935; loss and numbers after the released code (nusnlp/Self-J, `kd.py`, `judge.py`)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.fixtures.given import GivenContext, GivenModel, example_answers, example_loss, given_stage
from etude.models.outputs import Outputs
from etude.objective.imitation import imitation
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_token
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe
from etude.rollout.demonstrate import answer_tokens
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.types import NOISE, Episode, Group, Message, Signal, Span, Task

PAPER = Paper(
    "Self-Judge: Selective Instruction Following with Alignment Self-Evaluation", "2409.00935", 2024
)
TOP = 9  # of the scale, which begins at 0: a rating is one digit
ASK = "Question:\n{question}\n\n{shown}Answer:\n{answer}\n\nHow good is this answer? Reply with one digit, from 0 to 9."
REFERENCE = "A good answer, for comparison:\n{reference}\n\n"

FREE, DISTILLED = "free", "distilled"
"""Weight rows: the rating without a reference, and its digit alone."""
DIGIT = "digit"  # extra: 1 on the digit of a rating with the reference in view, -1 on that without it


def asked(task: Task, answer: str, reference: bool = False) -> Message:
    """What the judge is asked about an answer."""
    shown = REFERENCE.format(reference=task.reference or task.answer or "") if reference else ""
    question = "\n".join(m.content for m in task.prompt)
    return Message("user", ASK.format(question=question, shown=shown, answer=answer))


def likeness(text: str, reference: str) -> float:
    """The cosine of the counts of words, in [0, 1]."""
    a, b = (Counter(t.casefold().split()) for t in (text, reference))
    size = math.sqrt(sum(n * n for n in a.values()) * sum(n * n for n in b.values()))
    return sum(n * b[word] for word, n in a.items()) / size if size else 0.0


def rated(task: Task, answer: str, digit: int, context: Context, reference: bool) -> Signal:
    """The question about an answer with this digit as the reply. Weights mark the digit alone."""
    renderer = context.policy.renderer
    prompt, words = renderer.prompt([asked(task, answer, reference)]), answer_tokens(renderer, str(digit))
    spans = (Span("user", prompt), Span("assistant", words, tag="rating"))
    row = np.zeros(len(prompt) + len(words), np.float32)
    row[-2] = 1.0  # behind it stands the token that ends a reply
    return Signal(Episode(task, spans), 0 * row, {DISTILLED: row})


def expectations(cases: Sequence[Signal], context: Context, model: Any) -> list[float]:
    """sum_d d p(d) of each rating, p the model's probabilities of the ten digits in the rating's place, over their sum."""
    encode = context.policy.tokenizer.encode
    digits = [int(encode(str(d))[-1]) for d in range(TOP + 1)]

    def read(out: Outputs) -> Tensor:
        assert out.hidden is not None
        on = (out.hidden != 0).any(-1).nonzero()[:, 0]
        p = torch.softmax(out.logits(on).float().cpu()[:, digits], -1)
        return torch.zeros(len(out.logp)).index_copy(0, on.cpu(), p @ torch.arange(TOP + 1.0))

    return [float(row[-2]) for row in context.rows(cases, read, {"hidden"}, policy=model)]


def answers_of_the_start() -> GroupRolloutStage:
    """Answers of the model as it was when the run began: the one that is judged, while the policy becomes the judge."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        start = replace(rollouts, generator=rollouts.generators["reference"])
        return await start.plays(range(rollouts.samples))

    return group_rollout


@writes(IMITATION, FREE, DISTILLED, extras=(DIGIT,))
class SelfRated:
    """Two ratings of every answer to be learnt, with and without the reference, of one digit:

    d = round(e s_eval + (1 - e) 9 cos(y, y*)), s_eval the expected rating of the model as it was, y* in view."""

    reads = frozenset({"reference"})

    def __init__(
        self,
        own_share: Annotated[
            float, Setting("e: share of the model's own rating in the label", low=0, high=1)
        ] = 0.5,
    ) -> None:
        self.own_share = own_share
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        limit = getattr(context.policy, "context", 1 << 30)
        answers = [
            (e, case)
            for e in (e for g in groups for e in g.episodes)
            if len((case := rated(e.task, e.text, 0, context, True)).advantage) <= limit
        ]
        own = expectations([case for _, case in answers], context, context.auxiliary["reference"])
        signals, labels = [], []
        for (episode, _), rating in zip(answers, own, strict=True):
            task = episode.task
            like = TOP * likeness(episode.text, task.reference or task.answer or "")
            label = math.floor(self.own_share * rating + (1 - self.own_share) * like + 0.5)
            labels.append(float(label))
            for reference in (True, False):
                made = rated(task, episode.text, label, context, reference)
                signals.append(_learnt(made, reference))
        self.last = self._measured([e for e, _ in answers], labels, signals[1::2], context)
        return signals

    def _measured(
        self, episodes: Sequence[Episode], labels: Sequence[float], free: Sequence[Signal], context: Context
    ) -> dict[str, float]:
        """How labels, and the judge without a reference, go with the verdicts of the checks."""
        found = {"label": float(np.mean(labels))} if labels else {}
        truth = np.array([e.verdict.reward if e.verdict else np.nan for e in episodes])
        known = ~np.isnan(truth)
        if known.sum() > 2 and np.ptp(truth[known]) > NOISE:
            said = np.array(expectations(free, context, context.policy))
            for name, values in (("judged", said), ("labelled", np.array(labels))):
                if np.ptp(values[known]) > NOISE:
                    found[name] = float(np.corrcoef(values[known], truth[known])[0, 1])
        return found

    def report(self) -> dict[str, float]:
        """Mean label of the last step; correlation of the judge's ratings without a reference (`judged`) and of the labels
        (`labelled`) with the rewards of the tasks' checks, where there are any that differ."""
        return dict(self.last)


def _learnt(made: Signal, reference: bool) -> Signal:
    """The rating as it is trained on: its tokens, and what the two of a pair are known by."""
    digit = made.weights[DISTILLED]
    words = np.zeros_like(digit)
    words[-len(made.episode.spans[-1]) :] = 1.0
    if reference:
        return replace(made, weights={IMITATION: words}, extras={DIGIT: digit})
    return replace(made, weights={FREE: words, DISTILLED: digit}, extras={DIGIT: -digit})


def judged_twice(
    alone_weight: Annotated[float, Setting("a: weight of the rating without a reference", low=0)] = 0.3,
    towards_weight: Annotated[
        float, Setting("b: weight of the KL that pulls it to the rating with one", low=0)
    ] = 2.0,
) -> Objective:
    """CE_T + a CE_S + b KL(sg p_T || p_S): token means of ratings with (T) and without a reference (S); the KL over the whole
    vocabulary where the digit stands, a mean over ratings."""

    def free(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    def pulled(out: Outputs, batch: Batch) -> TokenLoss:
        seen, blind = ((batch.extras[DIGIT] * sign > 0).nonzero()[:, 0] for sign in (1, -1))
        teacher = torch.log_softmax(out.logits(seen).detach().float(), -1)
        student = torch.log_softmax(out.logits(blind).float(), -1)
        kl = (teacher.exp() * (teacher - student)).sum(-1)
        return torch.zeros_like(out.logp).index_copy(0, blind, kl.to(out.logp)), {}

    return objective(
        imitation(),
        Term(FREE, free, per_token, weight=FREE, coefficient=alone_weight),
        Term(DISTILLED, pulled, per_token, weight=DISTILLED, coefficient=towards_weight),
        needs={"hidden"},
        unit="group",
        extras={DIGIT},
    )


# ---- numbers -------------------------------------------------------------------------------------------------------


def _sure(*digits: int, odds: float = 1.0) -> list[float]:
    """Logits of a model that says one of two digits, the second `odds` times as likely as the first."""
    row = [-1e9] * 64
    row[48 + digits[0]], row[48 + digits[1]] = 0.0, math.log(odds)
    return row


def _answered() -> Group:
    made = example_answers((1.0, (2,)))
    task = replace(made.task, reference="a c")
    return Group(task, (replace(made.episodes[0], task=task, text="a b"),))


def _labels(**settings: Any) -> list[float]:
    """The digits that are learnt about an answer half like the reference, which the model rates 4 or 8, equally likely."""
    model = GivenModel(hidden=[_sure(4, 8)])
    context = GivenContext(model, {"reference": model})
    signals = given_stage(RECIPE, "credit", **settings)([_answered()], context)
    return [float(chr(s.episode.spans[-1].tokens[0])) for s in signals]


def _loss(**settings: Any) -> float:
    """Of one answer: log-probabilities -1 and -2 of the rating with the reference and its end, -3 and -4 without; digits 1 : 3 with the
    reference, 1 : 1 without."""
    model = GivenModel(hidden=[_sure(4, 8)])
    signals = given_stage(RECIPE, "credit")([_answered()], GivenContext(model, {"reference": model}))
    rows = [_sure(4, 8, odds=3.0), _sure(4, 8), _sure(4, 8), _sure(4, 8)]
    judge = GivenModel(logp=[-1.0, -2.0, -3.0, -4.0], hidden=rows)
    return example_loss(given_stage(RECIPE, "objective", **settings), signals, judge)


KL = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)

RECIPE: Recipe = Recipe(
    name="self_j",
    paper=PAPER,
    published_lr=3e-4,
    idea="The model rates its own answers with a reference in view, and a digit is made of this and of how like the reference they are. "
    "A judge learns to give the digit with the reference and without it, the second drawn towards the first. "
    "In the end it judges where nobody has a reference.",
    equation="d = round(e s_eval + (1 - e) 9 cos(y, y*));  L = CE_T + a CE_S + b KL(sg p_T || p_S);  score(y) = sum_d d p_S(d) / sum_d p_S(d)",
    departures=(
        "likeness is the cosine of word counts; the paper takes embeddings of sentences",
        "GUESS: both halves of a label weigh alike, the cosine stretched to 0 to 9 and the whole rounded to a digit",
        "the model's own rating is its expected digit, as its judge is read at last; how the release read it is not shown",
        "wordings are etude's own",
        "labels are made as the run goes on, by the model as it began; the release makes 30,000 beforehand and trains an adapter on them twice",
    ),
    stages={
        "group_rollout": stage(answers_of_the_start),
        "reward": stage(optional_verdict),
        "credit": stage(SelfRated),
        "objective": stage(judged_twice),
    },
    auxiliary={"reference": AuxiliaryModel("start")},
    needs=("answer", "text"),
    claim="Ratings without a reference go with true correctness more closely with the KL than without it.",
    manipulation=(Manipulated("labels go with what the checks say", r"credit\.labelled", 0.1, read="mean"),),
    examples=(
        ByHand("rated 6, half alike 4.5: 5.25", lambda: _labels(), [5, 5]),
        ByHand(
            "its own rating alone, likeness alone",
            lambda: [*_labels(own_share=1.0), *_labels(own_share=0.0)],
            [6, 6, 5, 5],
        ),
        ByHand(
            "likeness: the same, half of it, nothing, no words",
            lambda: [likeness(*t) for t in (("A b", "b a"), ("a b", "a c"), ("a", "b"), ("", "b"))],
            [1, 0.5, 0, 0],
        ),
        ByHand("CE_T 3/2, CE_S 7/2, p_T = 1/4, 3/4 and p_S = 1/2, 1/2", _loss, 1.5 + 0.3 * 3.5 + 2 * KL),
        ByHand("without the pull", lambda: _loss(alone_weight=1.0, towards_weight=0.0), 1.5 + 3.5),
        ByHand(
            "what is checked is reported; nothing checked, nothing",
            lambda: [
                given_stage(RECIPE, "reward")(replace(e, verdicts=v))["reward"]
                for e in _answered().episodes
                for v in (e.verdicts, ())
            ],
            [1, 0],
        ),
    ),
)
