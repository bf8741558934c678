"""RISE (error-injected self-editing): a right step is preferred to the same step with a subtle error.

One step of a right answer is written again with a wrong number, a swapped operand, a dropped term, and DPO learns to
prefer the right step at just that place, beside ordinary pairs of whole right and wrong answers. Subtle Errors Matter,
arXiv 2410.06638."""

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
from etude.channels import writes
from etude.credit.pairs import preference_pairs
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.models.outputs import Outputs
from etude.objective.preference import PAIR, DpoBeta, dpo_loss
from etude.objective.terms import Objective, Term, TokenLoss, objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.edits import ERRORS, subtle_error
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import Separator, noting, step_cuts
from etude.rollout.writers import WRITERS, Address, Longest, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Signal, Span

EDIT = "edit"
"""Note: where the edited step stands (`start`, `end`, in tokens) and the `tokens` that stand there instead."""

# ---- rollout -----------------------------------------------------------------------------------------

ASK_FOR_EDIT = (
    "{question}\n\nOne step of a right solution:\n{step}\n\n"
    "Write this step again with one subtle error: {error}. Change nothing else and say nothing else."
)


def close_enough(step: str, edited: str, likeness: float) -> bool:
    """Whether an edit changed something, and not much (difflib's ratio)."""
    return edited.strip() != step.strip() and SequenceMatcher(None, step, edited).ratio() >= likeness


class Edited:
    """Attempts; in groups with right and wrong ones, one step of the first right answer, drawn by key, is written
    again with a subtle error (note `EDIT`)."""

    def __init__(
        self,
        editor: Annotated[
            str, Setting("who edits: rules, or a model", choices=("rules", *WRITERS))
        ] = "rules",
        edits: Annotated[bool, Setting("make edits at all")] = True,
        separator: Separator = "\n",
        likeness: Annotated[float, Setting("least likeness of an edit to its step", low=0, high=1)] = 0.5,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.editor = None if editor == "rules" else Writer(editor, address, longest)
        self.reads = self.editor.reads if self.editor else frozenset()
        self.edits, self.separator, self.likeness = edits, separator, likeness

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        outcomes = [e.correct for e in episodes if not e.failure]
        if not self.edits or all(outcomes) or not any(outcomes):
            return episodes
        first = next(e for e in episodes if not e.failure and e.correct)

        async def look(episode: Episode) -> dict[str, Any]:
            return await self.edit(rollouts, episode) if episode is first else {}

        return await noting(rollouts, episodes, look)

    async def edit(self, rollouts: GroupRollout, episode: Episode) -> dict[str, Any]:
        """The note about one edit; none where it is no good."""
        renderer = rollouts.generator.renderer
        rng = seeds.generator(rollouts.key, "edit")
        words = np.flatnonzero(episode.sampled)
        last = int(words[-1]) + (int(episode.tokens[words[-1]]) not in renderer.stops)
        cuts = [int(words[0]), *step_cuts(renderer.tokenizer, episode, self.separator, 1 << 20), last]
        start, end = list(pairwise(cuts))[int(rng.integers(len(cuts) - 1))]
        step = renderer.decode(episode.tokens[start:end])
        if self.editor is None:
            edited = subtle_error(step, rng)
        else:
            error, question = rng.choice(list(ERRORS)), rollouts.task.prompt[-1].content
            asked = ASK_FOR_EDIT.format(question=question, step=step, error=error)
            conversation = rollouts.conversation(seeds.key("editor", episode.index))
            edited = await self.editor.draft(conversation, reworded(rollouts.task.prompt, asked))
        if not edited or not close_enough(step, edited, self.likeness):
            return {}
        return {EDIT: {"start": start, "end": end, "tokens": renderer.tokenizer.encode(edited).tolist()}}


# ---- credit ------------------------------------------------------------------------------------------

PREFERRED = "chosen"
"""Weight row: the text that is preferred."""

STEP = "step"
"""Tag of a right or edited step, behind the text before it."""


def step_pair(episode: Episode, number: int) -> list[Signal]:
    """The right step (+1) and its edit (-1) behind what stood before them (note `EDIT`); pair `number` of the group."""
    edit = episode.notes[EDIT]
    right = episode.tokens[edit["start"] : edit["end"]]
    before = Span("user", episode.tokens[: edit["start"]], tag="prefix")
    signals = []
    for tokens, sign in ((right, 1.0), (edit["tokens"], -1.0)):
        step = Span("assistant", np.array(tokens, np.int32), tag=STEP)
        on = np.append(np.zeros(len(before)), np.ones(len(step))).astype(np.float32)
        pair = {PAIR: np.full(len(on), number, np.float32)}
        signals.append(
            Signal(replace(episode, spans=(before, step)), on * np.float32(sign), {"policy": on}, pair)
        )
    return signals


@writes("policy", PREFERRED, extras=(PAIR,))
def full_and_step_pairs() -> Credit:
    """One pair of a right and a wrong answer per mixed group, and the pair of the edited step."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = preference_pairs(pairs=1)(groups, context)
        for group in groups:
            for episode in group.episodes:
                signals += step_pair(episode, 2) if EDIT in episode.notes else []
        rows = [s.weights["policy"] * (s.advantage > 0) for s in signals]
        return [
            replace(s, weights={**s.weights, PREFERRED: row}) for s, row in zip(signals, rows, strict=True)
        ]

    return credit


# ---- loss --------------------------------------------------------------------------------------------


def dpo_and_nll(
    dpo_beta: DpoBeta = 0.4,
    nll_weight: Annotated[float, Setting("weight of the preferred text's cross-entropy", low=0)] = 0.0,
) -> Objective:
    """DPO over all pairs, and nll_weight x the token mean of -log pi on the preferred text."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        return -out.logp

    if not nll_weight:
        return dpo_loss(dpo_beta) + objective(silent={PREFERRED})
    return dpo_loss(dpo_beta) + objective(Term(PREFERRED, loss, weight=PREFERRED, coefficient=nll_weight))


# ---- the recipe --------------------------------------------------------------------------------------


def _edited() -> list[Signal]:
    """Credit of a wrong answer and of a right one (3, 4, 5 behind the prompt 1, 2) whose 4 was edited into 8, 9."""
    wrong, right = example_attempts(0.0), example_attempts(1.0)
    words = Span("assistant", np.array([3, 4, 5], np.int32), True, -np.ones(3, np.float32), tag="attempt 1")
    edit = {EDIT: {"start": 3, "end": 4, "tokens": [8, 9]}}
    right = replace(right, spans=(right.spans[0], words), notes={**right.notes, **edit})
    return credited_signals(RECIPE, [wrong, right])


# margins d+ - d-: (log 2 + 0) - (-log 2), and 0 - log 2
W1, W2 = 1 / (1 + 4**0.4), 1 / (1 + 0.5**0.4)  # sigmoid(-beta margin)

RECIPE = Recipe(
    name="rise_editing",
    paper=Paper(
        "Subtle Errors Matter: Preference Learning via Error-injected Self-editing", "2410.06638", 2024
    ),
    published_lr=5e-7,
    idea="Most slips of a good solver are small: a wrong number, a swapped operand, a dropped term. "
    "Such an error is put into one step of a right answer, and the model learns to prefer the right step at just that place. "
    "Pairs of whole right and wrong answers are learnt beside it.",
    equation="L = DPO(right, wrong | x) + DPO(step, edited step | x, steps before) + lambda NLL(chosen)",
    departures=(
        "edits are made by rules (--set group_rollout.editor=policy asks the policy itself, as in the paper)",
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
    manipulation=(Manipulated("one attempt in twenty is edited", "noted/edit", 0.05),),
    examples=(
        ByHand("a pair of answers, right and wrong", lambda: advantages_of(_edited(), "attempt 1"), [1, -1]),
        ByHand(
            "a pair of the step and its edit, behind prompt and first token: 3 + 1 and 3 + 2 tokens",
            lambda: [
                *advantages_of(_edited(), STEP),
                *(len(s.episode.tokens) for s in _edited()[2:]),
                *(s.extras[PAIR][0] for s in _edited()),
            ],
            [1, -1, 4, 5, 1, 1, 2, 2],
        ),
        ByHand(
            "what is preferred: the right answer and the right step, whose advantage is 1",
            lambda: [advantages_of(_edited(), tag, PREFERRED) for tag in ("attempt 1", STEP)],
            [[1], [1]],
        ),
        OffPolicy(
            "two pairs against a start at exp(-1): d = log 2 over log(1/2), and 0 over log 2; gradient -/+ beta w / 2, "
            "w = sigmoid(-beta margin); 0.5 x the mean of -log pi of what is preferred",
            ratio=(2.0, 1.0, 0.5, 1.0, 2.0),
            advantage=(1.0, 1.0, -1.0, 1.0, -1.0),
            lengths=(2, 1, 1, 1),
            weights={"policy": (1, 1, 1, 1, 1), PREFERRED: (1, 1, 0, 1, 0)},
            extras={"reference": (-1.0,) * 5, PAIR: (1,) * 5},
            settings={"objective.nll_weight": 0.5},
            loss=(-math.log(1 - W1) - math.log(1 - W2)) / 2 + 0.5 * (3 - math.log(2)) / 3,
            gradient=(
                -0.4 * W1 / 2 - 0.5 / 3,
                -0.4 * W1 / 2 - 0.5 / 3,
                0.4 * W1 / 2,
                -0.4 * W2 / 2 - 0.5 / 3,
                0.4 * W2 / 2,
            ),
        ),
        ByHand(
            "the only number of '7' is changed, and nothing else could be",
            lambda: [float(subtle_error("7", seeds.generator(i)) == "7") for i in range(8)],
            [0] * 8,
        ),
        Reduction("no edits: DPO", "dpo", {"group_rollout.edits": False}, {"objective.dpo_beta": 0.4}),
    ),
)
