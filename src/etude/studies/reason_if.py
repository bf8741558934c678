"""Do models follow instructions about their reasoning as they do about their answer?

ReasonIF: one of six instructions is given about the reasoning trace, or, as a control, about the final response; a rule says
whether the text obeys. An empty trace fails. Reasoning stands between <think> and </think>, the response behind it; a reply
without these marks is all response.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from etude.recipe import Paper
from etude.rollout.attempts import below
from etude.rollout.conversation import Conversation
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Required, Study, more
from etude.study.subject import Subject
from etude.types import Message, Task

WORDS = 40
PHRASE = "that is all i have to say"


def is_json(text: str) -> bool:
    """Whether it parses as JSON, code fences taken away."""
    bare = re.sub(r"^```(?:json)?\s*|\s*```$", "", text.strip())
    try:
        json.loads(bare)
    except ValueError:
        return False
    return True


RULES: Mapping[str, tuple[str, Callable[[str], bool]]] = {
    "short": (f"use fewer than {WORDS} words", lambda t: len(t.split()) < WORDS),
    "capitals": (
        "write in English, in capital letters only",
        lambda t: t.upper() == t and any(c.isalpha() for c in t),
    ),
    "phrase": (
        f'end with exactly the words "{PHRASE}"',
        lambda t: t.strip().casefold().rstrip(".").endswith(PHRASE),
    ),
    "json": ("write it as one JSON object, and nothing else", is_json),
    "commas": ("use no commas", lambda t: "," not in t),
    "letter": ("begin with the word OK", lambda t: t.strip().casefold().startswith("ok")),
}
ASK = {
    "reasoning": "Think first, between <think> and </think>, then answer. In your thinking, and only there, {rule}.",
    "response": "Think first, between <think> and </think>, then answer. In your answer behind </think>, and only there, {rule}.",
}


def split(text: str) -> tuple[str, str]:
    """(reasoning, response) of a reply."""
    found = re.search(r"<think>(.*?)(?:</think>|\Z)(.*)", text, re.S)
    if found:
        return found[1].strip(), found[2].strip()
    before, mark, after = text.partition("</think>")
    return (before.strip(), after.strip()) if mark else ("", text.strip())


def obeys(rule: str, text: str) -> bool:
    """Whether a text follows a rule; an empty one follows none."""
    return bool(text.strip()) and RULES[rule][1](text)


def look(subject: Subject) -> Mapping[str, Any]:
    """Every held-out problem with one rule in turn, about the reasoning and about the response."""
    rules = {task.key: list(RULES)[i % len(RULES)] for i, task in enumerate(subject.held)}
    example = subject.arm.given.get("example", "")

    async def asked(task: Task, conversation: Conversation) -> dict[str, float]:
        rule = rules[task.key]
        found: dict[str, float] = {}
        for i, (place, words) in enumerate(ASK.items()):
            branch = conversation.fork(i)
            told = words.format(rule=RULES[rule][0])
            said: tuple[Message, ...] = below(task.prompt, f"{told}{example}")
            branch.new_context(said)
            parts = split(await branch.reply())
            found[place] = float(obeys(rule, parts[i]))
            if place == "reasoning":
                found["thought"] = float(bool(parts[0]))
        return found

    return subject.noted(asked, greedy=True)


STUDY = Study(
    name="reason_if",
    paper=Paper(
        "ReasonIF: Large Reasoning Models Fail to Follow Instructions During Reasoning", "2510.15211", 2025
    ),
    question="Are instructions about the reasoning followed less than the same instructions about the response?",
    arms=(
        Arm("asked"),
        Arm(
            "shown",
            given={"example": " For example: <think>A thought of this form.</think> The answer, plainly."},
            says="with an example of the form",
        ),
    ),
    measures=(
        Measure("reasoning", POINTS, "reasoning traces that follow their instruction", look),
        Measure("response", POINTS, "responses that follow theirs", look),
        Measure("thought", POINTS, "replies with a reasoning trace", look),
    ),
    hypotheses=(
        Hypothesis(
            "reasoning obeys less",
            "Instructions about the reasoning are followed less often than about the response.",
            more("shown", "reasoning", "shown", "response"),
            least=5.0,
            better="lower",
            requires=(
                Required("% of replies with a reasoning trace", ((1.0, "shown", "thought"),), at_least=30),
            ),
        ),
        Hypothesis(
            "an example helps",
            "An example of the form helps the reasoning.",
            more("shown", "reasoning", "asked"),
            5.0,
        ),
    ),
    defaults=Defaults(
        model="smollm2",
        tasks="chain_sum:max_terms=2",
        seeds=1,
        problems=48,
        samples=1,
        changes={"run.max_tokens": "96", "run.rows": "64"},
    ),
    departures=(
        "languages are left out, which no maintained identifier at hand tells apart offline; to begin with a word stands in its place",
        "40 words in the place of a reference model's 20th percentile; sums in the place of 300 questions",
        "fine-tuning on conforming traces is left out",
    ),
)
