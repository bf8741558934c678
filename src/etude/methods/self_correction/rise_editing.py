"""RISE (error-injected self-editing): a right step is preferred to the same step with a subtle error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from itertools import pairwise
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.batch import Batch
from etude.credit.pairs import preference_pairs
from etude.models.outputs import Outputs
from etude.objective.preference import dpo_loss, pair_loss
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.edits import ERRORS, subtle_error
from etude.rollout.probe import Separator, noting, step_cuts
from etude.rollout.speakers import Address, Longest, Speaker
from etude.settings import Setting, stage
from etude.types import Episode, Group, Signal, Span

ASK = (
    "{question}\n\nOne step of a right solution:\n{step}\n\n"
    "Write this step again with one subtle error: {error}. Change nothing else and say nothing else."
)


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

    async def __call__(self, rollouts: Any) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        outcomes = [e.correct for e in episodes if not e.failure]
        if not self.edits or all(outcomes) or not any(outcomes):
            return episodes
        first = next(e for e in episodes if not e.failure and e.correct)

        async def look(episode: Episode) -> dict[str, Any]:
            return await self.edit(rollouts, episode) if episode is first else {}

        return await noting(rollouts, episodes, look)

    async def edit(self, rollouts: Any, episode: Episode) -> dict[str, Any]:
        """The notes about one edit; none where it is no good."""
        renderer = rollouts.generator.renderer
        rng = seeds.generator(rollouts.key, "edit")
        words = np.flatnonzero(episode.sampled)
        last = int(words[-1]) + (int(episode.tokens[words[-1]]) not in renderer.stops)
        cuts = [int(words[0]), *step_cuts(renderer.tokenizer, episode, self.separator, 1 << 20), last]
        start, end = list(pairwise(cuts))[int(rng.integers(len(cuts) - 1))]
        step = renderer.decode(episode.tokens[start:end])
        if self.speaker is None:
            edited = subtle_error(step, rng)
        else:
            error, question = rng.choice(list(ERRORS)), rollouts.task.prompt[-1].content
            asked = ASK.format(question=question, step=step, error=error)
            conversation = rollouts.conversation(seeds.key("editor", episode.index))
            edited = await self.speaker.words(conversation, reworded(rollouts.task.prompt, asked))
        if not edited or not close_enough(step, edited, self.likeness):
            return {}
        return {"edit": {"start": start, "end": end, "tokens": renderer.tokenizer.encode(edited).tolist()}}


def step_pair(episode: Episode, number: int) -> list[Signal]:
    """The right step (+1) and its edit (-1) after what stood before them (notes `edit`); pair `number` of the group."""
    edit = episode.notes["edit"]
    right = episode.tokens[edit["start"] : edit["end"]]
    before = Span("user", episode.tokens[: edit["start"]], tag="prefix")
    signals = []
    for tokens, sign in ((right, 1.0), (edit["tokens"], -1.0)):
        step = Span("assistant", np.array(tokens, np.int32), tag="step")
        on = np.append(np.zeros(len(before)), np.ones(len(step))).astype(np.float32)
        pair = {"pair": np.full(len(on), number, np.float32)}
        laid = replace(episode, spans=(before, step))
        signals.append(Signal(laid, on * np.float32(sign), {"policy": on}, pair))
    return signals


def full_and_step_pairs():
    """One pair of a right and a wrong answer per mixed group, and the pair of the edited step. Row "chosen": the
    text that is preferred (RISE, arXiv 2410.06638)."""

    def credit(groups: Sequence[Group], context: Any) -> list[Signal]:
        signals = preference_pairs(pairs=1)(groups, context)
        for group in groups:
            for episode in group.episodes:
                signals += step_pair(episode, 2) if "edit" in episode.notes else []
        rows = [s.weights["policy"] * (s.advantage > 0) for s in signals]
        return [
            replace(s, weights={**s.weights, "chosen": row}) for s, row in zip(signals, rows, strict=True)
        ]

    return credit


def dpo_and_nll(
    beta: Annotated[float, Setting("strength of the pull to the reference policy", low=0)] = 0.4,
    nll: Annotated[float, Setting("weight of the chosen text's cross-entropy", low=0)] = 0.0,
) -> Objective:
    """DPO over all pairs, and nll x the token mean of -log pi(chosen) (RISE, arXiv 2410.06638)."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    base = dpo_loss(beta)
    return base + objective(Term("chosen", loss, weight="chosen", coefficient=nll)) if nll else base


RECIPE = Recipe(
    name="rise_editing",
    n=278,
    paper=Paper(
        "Subtle Errors Matter: Preference Learning via Error-injected Self-editing", "2410.06638", 2024
    ),
    idea="Most slips of a good solver are small: a wrong number, a swapped operand, a dropped term. "
    "Such an error is put into one step of a right answer, and the model learns to prefer the right step at just that place. "
    "Pairs of whole right and wrong answers are learnt beside it.",
    equation="L = DPO(right, wrong | x) + DPO(step, edited step | x, steps before) + lambda NLL(chosen)",
    departures=(
        "edits are made by rules (--set gather.editor=policy asks the policy itself, as in the paper)",
        "likeness is difflib's ratio, where the paper filters by Levenshtein distance with a threshold that is not known",
        "pairs are sampled anew from the current policy at every step",
        "lambda is 0, as in the released trainer",
    ),
    stages={
        "group_rollout": stage(Edited),
        "credit": stage(full_and_step_pairs),
        "objective": stage(dpo_and_nll),
    },
    needs=("text",),
    claim="At equal numbers of pairs, edited steps cut arithmetic slips more than pairs of whole answers do.",
    examples=(
        ByHand(
            "a margin of 5 nats at beta 0.4", lambda: float(pair_loss(5.0, 0.4)), math.log1p(math.exp(-2))
        ),
        ByHand(
            "the only number of '7' is changed, and nothing else could be",
            lambda: [float(subtle_error("7", seeds.generator(i)) == "7") for i in range(8)],
            [0] * 8,
        ),
        Reduction("no edits: DPO", "dpo", {"group_rollout.edits": False}, {"objective.beta": 0.4}),
    ),
)
