"""Subtle errors put into a right step of a solution: by rules, or by a model that is asked to."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.rollout.attempts import reworded
from etude.rollout.probe import Separator, noting, step_cuts
from etude.rollout.speakers import Address, Longest, Speaker
from etude.settings import Setting
from etude.types import Episode

_NUMBER = re.compile(r"\d+")
_OPERATION = re.compile(r"(\d+)(\s*)([-+*/])(\s*)(\d+)")
_OTHER = {"+": "-", "-": "+", "*": "+", "/": "*"}

ASK = (
    "{question}\n\nOne step of a right solution:\n{step}\n\n"
    "Write this step again with one subtle error: {error}. Change nothing else and say nothing else."
)


def _number(step: str, rng: np.random.Generator) -> str:
    found = list(_NUMBER.finditer(step))
    if not found:
        return step
    one = found[rng.integers(len(found))]
    changed = abs(int(one[0]) + int(rng.choice([-10, -2, -1, 1, 2, 10])))
    return step[: one.start()] + str(changed) + step[one.end() :]


def _operator(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[1] + m[2] + _OTHER[m[3]] + m[4] + m[5])


def _operands(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[5] + m[2] + m[3] + m[4] + m[1])


def _term(step: str, rng: np.random.Generator) -> str:
    return _change(step, rng, lambda m: m[1])


def _change(step: str, rng: np.random.Generator, new: Callable[[re.Match[str]], str]) -> str:
    found = list(_OPERATION.finditer(step))
    if not found:
        return step
    one = found[rng.integers(len(found))]
    return step[: one.start()] + new(one) + step[one.end() :]


ERRORS: dict[str, Callable[[str, np.random.Generator], str]] = {
    "change a number": _number,
    "change an operator": _operator,
    "swap two operands": _operands,
    "drop a term": _term,
}


def subtle_error(step: str, rng: np.random.Generator) -> str | None:
    """The step with one error drawn among those that apply to it; None where none does."""
    for name in rng.permutation(list(ERRORS)):
        changed = ERRORS[name](step, rng)
        if changed != step:
            return changed
    return None


def close_enough(step: str, edited: str, likeness: float) -> bool:
    """Whether an edit changed something, and not much (difflib's ratio)."""
    return edited.strip() != step.strip() and SequenceMatcher(None, step, edited).ratio() >= likeness


class Edited:
    """Attempts; in groups with right and wrong ones, one step of the first right answer, drawn by key, is written
    again with a subtle error. Notes `edit`: where the step stands (tokens) and the tokens of the edit
    (RISE, arXiv 2410.06638)."""

    def __init__(
        self,
        editor: Annotated[
            str,
            Setting(
                "who edits: rules, or a speaker", choices=("rules", "policy", "start", "teacher", "remote")
            ),
        ] = "rules",
        edits: Annotated[bool, Setting("make edits at all")] = True,
        separator: Separator = "\n",
        likeness: Annotated[float, Setting("least likeness of an edit to its step", low=0, high=1)] = 0.5,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.speaker = None if editor == "rules" else Speaker(editor, address, longest)
        self.reads = self.speaker.reads if self.speaker else frozenset()
        self.edits, self.separator, self.likeness = edits, separator, likeness

    async def __call__(self, table: Any) -> list[Episode]:
        episodes = await table.plays(range(table.samples))
        outcomes = [e.correct for e in episodes if not e.failure]
        if not self.edits or all(outcomes) or not any(outcomes):
            return episodes
        first = next(e for e in episodes if not e.failure and e.correct)

        async def look(episode: Episode) -> dict[str, Any]:
            return await self.edit(table, episode) if episode is first else {}

        return await noting(table, episodes, look)

    async def edit(self, table: Any, episode: Episode) -> dict[str, Any]:
        """The notes about one edit; none where it is no good."""
        renderer = table.voice.renderer
        rng = seeds.generator(table.key, "edit")
        words = np.flatnonzero(episode.sampled)
        last = int(words[-1]) + (int(episode.tokens[words[-1]]) not in renderer.stops)
        cuts = [int(words[0]), *step_cuts(renderer.tokenizer, episode, self.separator, 1 << 20), last]
        start, end = list(pairwise(cuts))[int(rng.integers(len(cuts) - 1))]
        step = renderer.decode(episode.tokens[start:end])
        if self.speaker is None:
            edited = subtle_error(step, rng)
        else:
            error, question = rng.choice(list(ERRORS)), table.task.prompt[-1].content
            asked = ASK.format(question=question, step=step, error=error)
            player = table.player(seeds.key("editor", episode.index))
            edited = await self.speaker.words(player, reworded(table.task.prompt, asked))
        if not edited or not close_enough(step, edited, self.likeness):
            return {}
        return {"edit": {"start": start, "end": end, "tokens": renderer.tokenizer.encode(edited).tolist()}}
