"""Can a model judge its own answers, and does throwing away what it judges wrong beat a vote over everything?

CriticBench: critique accuracy is the share of right verdicts on a balanced set of right and wrong answers; it falls with the
uncertainty of the question (certainty: the share of samples with the modal answer). Self-check samples n answers, drops those
that the model's own critique calls wrong, and lets the rest vote (all of them where none is left).

The critique is asked in the words of `rollout.second.CRITICISE_UNAIDED`, "Say in a few words whether and where it is wrong."; a
reply that says "right" and not "wrong" calls the answer right.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from etude.recipe import Paper
from etude.rollout.attempts import answer_of, reworded
from etude.rollout.conversation import Conversation
from etude.rollout.second import CRITICISE_UNAIDED
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Required, Study, more
from etude.study.subject import Subject
from etude.types import Task, Verdict


def called_right(said: str) -> bool:
    """The verdict that a critique's words hold: right where they say so and name nothing wrong."""
    words = said.casefold()
    return bool(re.search(r"\b(right|correct)\b", words)) and not re.search(
        r"\b(wrong|incorrect|not (right|correct))\b", words
    )


async def critique(task: Task, conversation: Conversation, answer: str) -> bool:
    """Whether the model, in a context of its own, calls an answer right."""
    asked = CRITICISE_UNAIDED.format(question=task.prompt[-1].content, answer=answer)
    conversation.new_context(reworded(task.prompt, asked))
    return called_right(await conversation.reply("critique"))


def look(subject: Subject) -> Mapping[str, Any]:
    n = subject.samples

    async def sampled(task: Task, conversation: Conversation) -> dict[str, float]:
        answers: list[tuple[str, Verdict, bool]] = []
        for i in range(n):
            branch = conversation.fork(i)
            branch.new_context(task.prompt)
            text = await branch.reply()
            verdict = await branch.check(text)
            answers.append((text, verdict, await critique(task, branch, text)))
        return scored(
            [answer_of(task, text) for text, _, _ in answers],
            [v.correct for _, v, _ in answers],
            [c for *_, c in answers],
        )

    return subject.noted(sampled)


def scored(answers: Sequence[str | None], rights: Sequence[bool], called: Sequence[bool]) -> dict[str, float]:
    """What one problem's samples give: single, vote, self-check, the oracle that sees which are right, balanced critique accuracy where
    there are both sorts, split by certainty."""
    right = np.array(rights, bool)
    said = np.array(called, bool)
    found = {
        "single": float(right.mean()),
        "vote": voted(answers, right, np.ones(len(right), bool)),
        "self-check": voted(answers, right, said),
        "oracle": float(right.any()),
        "called right": float(said.mean()),
    }
    if right.any() and not right.all():
        found["critique"] = float(said[right].mean() + (~said[~right]).mean()) / 2
        counts = [list(answers).count(a) for a in answers if a is not None]
        certain = max(counts, default=0) / len(answers)
        found["critique, sure" if certain >= 0.5 else "critique, unsure"] = found["critique"]
    return found


def voted(answers: Sequence[str | None], right: Any, kept: Any) -> float:
    """The expected accuracy of the most frequent answer among those kept (of all, where none is), ties shared evenly."""
    left = [i for i in range(len(answers)) if kept[i]] or list(range(len(answers)))
    votes: dict[str, list[int]] = {}
    for i in left:
        if answers[i] is not None:
            votes.setdefault(str(answers[i]), []).append(i)
    if not votes:
        return 0.0
    most = max(map(len, votes.values()))
    leaders = [v for v in votes.values() if len(v) == most]
    return float(np.mean([right[v].mean() for v in leaders]))


STUDY = Study(
    name="self_check",
    paper=Paper("Critique Ability of Large Language Models", "2310.04815", 2023),
    question="Does a model's critique of its own answers make better use of samples than a vote?",
    arms=(Arm("model"),),
    measures=(
        Measure("single", POINTS, "right at a single attempt", look),
        Measure("vote", POINTS, "the most frequent answer is right", look),
        Measure("self-check", POINTS, "the most frequent answer that the critique lets pass is right", look),
        Measure("oracle", POINTS, "one of the samples is right", look),
        Measure("called right", POINTS, "answers that the critique calls right", look),
        Measure(
            "critique",
            POINTS,
            "right verdicts, right and wrong answers of a problem weighed alike; 50 is chance",
            look,
        ),
        Measure("critique, sure", POINTS, "the same where half of the samples agree", look),
        Measure("critique, unsure", POINTS, "the same where they do not", look),
    ),
    hypotheses=(
        Hypothesis(
            "votes help",
            "A vote is better than a single answer.",
            more("model", "vote", "model", "single"),
            least=2.0,
        ),
        Hypothesis(
            "self-check helps",
            "Self-check is better than the vote.",
            more("model", "self-check", "model", "vote"),
            least=2.0,
            requires=(
                Required("% right verdicts of the critique", ((1.0, "model", "critique"),), at_least=55),
            ),
        ),
        Hypothesis(
            "unsure is harder",
            "Verdicts are more often right where the samples agree.",
            more("model", "critique, sure", "model", "critique, unsure"),
            least=3.0,
        ),
    ),
    needs=("answers",),
    defaults=Defaults(
        tasks="lab:level=1",
        seeds=2,
        problems=150,
        samples=8,
        changes={"run.max_tokens": "96", "run.rows": "512"},
    ),
    departures=(
        "critic and generator are one model; right and wrong answers of a problem are weighed alike in the place of a balanced set",
        "the critique is asked in this package's words, not in the paper's few-shot prompt",
    ),
)
