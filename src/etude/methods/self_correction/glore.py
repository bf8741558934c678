"""GLoRe's training: a reward model of beginnings, and a policy that refines a draft as a whole or from its first bad step on.

From the end of every step of a wrong draft the policy goes on K times; a step from which any of these ends right was sound.
From these verdicts a reward model learns to tell sound beginnings from others (SORM: it approximates what the best policy would
make of them), and from the continuations the policy learns to mend drafts. GLoRe: When, Where, and How to Improve LLM Reasoning
via Global and Local Refinements, arXiv 2402.10963. How both answer a question is `glore`."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.batch import Batch, pack
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.given import GivenContext, GivenModel, beyond_prompt, example_answers, given_stage
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.imitation.rft import right_answers
from etude.models.outputs import Outputs
from etude.objective.compared import REWARD
from etude.objective.outcome import binary_cross_entropy
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_token
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import PROBE, Separator, branches, last_turn, noting, steps_of, tokens_left
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Array, Episode, Group, Signal, Span

PAPER = Paper(
    "GLoRe: When, Where, and How to Improve LLM Reasoning via Global and Local Refinements",
    "2402.10963",
    2024,
)
STEPS = "steps"
"""Note of a wrong attempt: "cuts", where its answer begins and its K steps end, in tokens; "text", the steps; "verified", for each of
the first K - 1 the tokens of a continuation from there that ended right, or none."""

BAD = "[BAD]"
DRAFT = "{question}\n\nA draft, which may be wrong:\n{draft}\n\n"
GLOBAL = DRAFT + "Write a right solution."
LOCAL = (
    DRAFT + "The first wrong step is marked by [BAD]. Keep what stands before it and write a right solution."
)

# ---- group rollout: K continuations from the end of every step of a wrong attempt --------------------------------------


def verified_steps(
    probes: Annotated[int, Setting("K, continuations from the end of each step; 0: none", low=0)] = 8,
    separator: Separator = "\n",
) -> GroupRolloutStage:
    """Attempts; wrong ones with the note `STEPS`. A right attempt verifies all of its own steps."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        async def look(episode: Episode) -> dict[str, Any]:
            if episode.correct or not episode.sampled.any():
                return {}
            cuts, text = steps_of(rollouts.generator.renderer.tokenizer, episode, separator)
            found = await asyncio.gather(*(_verified(rollouts, episode, cut, probes) for cut in cuts[1:-1]))
            return {STEPS: {"cuts": cuts, "text": text, "verified": list(found)}}

        return await noting(rollouts, await rollouts.plays(range(rollouts.samples)), look)

    return group_rollout


async def _verified(rollouts: GroupRollout, episode: Episode, cut: int, number: int) -> list[int]:
    """The tokens of the first of the continuations that ends right; none where none does."""
    left = tokens_left(rollouts, episode, cut)
    lines = await branches(rollouts, episode, cut, number, max_tokens=left)
    verdicts = await asyncio.gather(*(line.check(last_turn(line)) for line in lines))
    right = next((line for line, verdict in zip(lines, verdicts, strict=True) if verdict.correct), None)
    return [] if right is None else np.concatenate([s.tokens for s in right.spans if s.tag == PROBE]).tolist()


# ---- SORM: P(sound) = sigmoid(r(x, s_1..s_i)), read where the beginning is ended as a reply is -----------------------

LABEL = "label"
"""Extra: 1 behind a sound beginning, 0 behind another."""


def sound(verified: Sequence[object], right: bool) -> list[bool]:
    """Whether each of K beginnings is sound: a continuation from there ended right, or from a later one."""
    raw = [*map(bool, verified), right]
    return [any(raw[i:]) for i in range(len(raw))]


@writes(REWARD, extras=(LABEL,))
def labelled_beginnings(
    balanced: Annotated[
        bool, Setting("sound and other beginnings of equally many steps weigh the same in a step")
    ] = True,
    separator: Separator = "\n",
) -> Credit:
    """Every beginning of every attempt, ended as a reply is, with its label where it ends."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        found: list[tuple[int, bool, Episode]] = []
        stop = np.array(context.policy.renderer.stops[:1], np.int32)
        for episode in (e for g in groups for e in g.episodes if e.sampled.any()):
            noted = episode.notes.get(STEPS)
            if noted is None:
                cuts, _ = steps_of(context.policy.tokenizer, episode, separator)
                labels = [episode.correct] * (len(cuts) - 1)
            else:
                cuts, labels = noted["cuts"], sound(noted["verified"], episode.correct)
            for number, (cut, label) in enumerate(zip(cuts[1:], labels, strict=True)):
                found.append((number, label, _ended(episode, cuts[0], cut, stop)))
        counts = Counter((number, label) for number, label, _ in found)
        return [_labelled(e, y, weight(counts, n, y) if balanced else 1.0) for n, y, e in found]

    return credit


def weight(counts: Counter[tuple[int, bool]], number: int, label: bool) -> float:
    """min(sound, others) / those with this label, of the beginnings of this many steps; 1 where there is one kind alone."""
    mine, others = counts[number, label], counts[number, not label]
    return min(mine, others) / mine if others else 1.0


def _ended(episode: Episode, begin: int, cut: int, stop: Array) -> Episode:
    words = episode.tokens[begin:cut]
    whole = len(words) and int(words[-1]) == int(stop[0])
    answer = words if whole else np.concatenate([words, stop])
    return replace(episode, spans=(Span("user", episode.tokens[:begin]), Span("assistant", answer)))


def _labelled(episode: Episode, label: bool, weighs: float) -> Signal:
    row = np.zeros(len(episode.tokens), np.float32)
    row[-1] = weighs
    return Signal(episode, 0 * row, {REWARD: row}, {LABEL: np.full(len(row), label, np.float32)})


def soundness() -> Objective:
    """Binary cross-entropy of sigmoid(r) against the label. Metric `told`: the share of labels on the right side of 0."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        r, label = out.heads[REWARD][:, 0], batch.extras[LABEL]
        return binary_cross_entropy(r, label.to(r)), {"told": ((r > 0) == (label > 0.5)).to(r)}

    made = objective(Term("soundness", loss, per_token, weight=REWARD), extras={LABEL})
    return replace(made, heads={REWARD: 1})


# ---- refiners: (x, draft) -> a right solution; (x, draft with its first bad step marked) -> one from before it --------


def marked(steps: Sequence[str], bad: int) -> str:
    """The draft, with `BAD` before step number `bad` (from 0). Steps hold the separators that end them."""
    return "".join([*steps[:bad], f"{BAD} ", *steps[bad:]])


@writes(IMITATION)
def refinements(
    globally: Annotated[bool, Setting("learn to refine a draft as a whole")] = True,
    locally: Annotated[bool, Setting("learn to refine it from its first bad step on")] = True,
    answers: Annotated[bool, Setting("imitate right attempts as well")] = True,
) -> Credit:
    """Of every wrong attempt: a right one of its group, behind the draft; and its sound beginning with the continuation that
    verified it (a right attempt of the group, where nothing is sound), behind the draft in which the first bad step is
    marked."""
    plain = right_answers()

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = plain(groups, context) if answers else []
        for group in groups:
            right = [e.tokens[e.sampled] for e in group.episodes if e.correct]
            for episode in (e for e in group.episodes if STEPS in e.notes):
                noted = episode.notes[STEPS]
                kept = max((i + 1 for i, tokens in enumerate(noted["verified"]) if tokens), default=0)
                mended = right[:1]
                if kept:
                    before = episode.tokens[noted["cuts"][0] : noted["cuts"][kept]]
                    mended = [np.concatenate([before, np.array(noted["verified"][kept - 1], np.int32)])]
                draft, bad = "".join(noted["text"]), marked(noted["text"], kept)
                if globally and (right or mended):
                    signals.append(_behind(episode, context, GLOBAL, draft, (right or mended)[0]))
                if locally and mended:
                    signals.append(_behind(episode, context, LOCAL, bad, mended[0]))
        return signals

    return credit


def _behind(episode: Episode, context: Context, wording: str, draft: str, solution: Array) -> Signal:
    prompt = episode.task.prompt
    asked = reworded(prompt, wording.format(question=prompt[-1].content, draft=draft)) if prompt else ()
    before = context.policy.renderer.prompt(asked, 0)
    made = replace(episode, spans=(Span("user", before), Span("assistant", solution, tag="refined")))
    return imitate(made, np.arange(len(made.tokens)) >= len(before))


# ---- the recipes -----------------------------------------------------------------------------------------------------


def _group() -> Group:
    """A right answer 5; a wrong one of three steps 6, 7, 8, after the first of which 8 ended right, and after the second 9 9."""
    made = example_answers((1.0, (5,)), (0.0, (6, 7, 8)))
    right, wrong = made.episodes
    noted = {"cuts": [1, 2, 3, 4], "text": ["a\n", "b\n", "c"], "verified": [[8], [9, 9]]}
    return replace(made, episodes=(right, replace(wrong, notes={STEPS: noted})))


def _labels(**settings: Any) -> list[list[float]]:
    """Of each beginning: how many tokens it has with its end, its weight, its label."""
    signals = given_stage(SORM, "credit", **settings)([_group()], GivenContext())
    return [
        [len(s.episode.tokens) - 1, float(s.weights[REWARD][-1]), float(s.extras[LABEL][-1])] for s in signals
    ]


def _told() -> float:
    """Of four beginnings, 5, 6, 6 7 (sound) and 6 7 8 (not), to which the head gives 1, -1, 1 and -1: how many are told."""
    signals = given_stage(SORM, "credit")([_group()], GivenContext())
    model, batch = GivenModel(reward=[[1.0], [-1.0], [1.0], [-1.0]]), pack(signals)
    (term,) = given_stage(SORM, "objective").terms
    told = term.loss(model.score(batch), batch)[1]["told"]
    return float(told[batch.weight(REWARD) != 0].sum())


def _refined(**settings: Any) -> list[list[int]]:
    """What is imitated, behind prompts of one token."""
    signals = given_stage(REFINER, "credit", **settings)([_group()], GivenContext())
    assert beyond_prompt(signals, IMITATION) == [1.0] * sum(len(s.episode.tokens) - 1 for s in signals)
    return [s.episode.tokens[1:].tolist() for s in signals]


SORM: Recipe = Recipe(
    name="sorm",
    paper=PAPER,
    idea="A reward model that reads beginnings of solutions and says whether they can still come out right. A beginning counts as sound "
    "where any of several continuations of the policy's ends right. What comes out is a reward: it finds the first bad step of a "
    "draft, ranks answers, and steers a search (by=model:RUN).",
    equation="y_i = max_{j >= i} [a continuation of s_1..s_j ends right];  L = - mean w_i (y_i log sigmoid(r_i) + (1 - y_i) log(1 - sigmoid(r_i)))",
    departures=(
        "a beginning is read at the token that ends a reply, as every reward model here is, so that each is a sequence of its own; the paper "
        "labels the steps of one",
        "right attempts are not continued, since they verify all their steps; K = 8 is from memory",
        "GUESS: balanced within a training step by weights, where the paper drops data; where one kind is missing it keeps weight 1",
        "whether a step's intermediate result is used later is not asked",
    ),
    confidence="memory",
    stages={
        "group_rollout": stage(verified_steps),
        "credit": stage(labelled_beginnings),
        "objective": stage(soundness),
    },
    needs=("text",),
    claim="It finds the first wrong step more often than a model that learns every step's label from the outcome (group_rollout.probes=0).",
    manipulation=(Manipulated("six labels in ten are told at last", "told", 0.6, read="last"),),
    examples=(
        ByHand(
            "verified after the second of four: the first two; a right end: all; nothing verified: none",
            lambda: [sound([[], [1], []], False), sound([[], [], []], True), sound([[], [], []], False)],
            [[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        ),
        ByHand(
            "5, 6 and 6 7, all sound; 6 7 8: not",
            lambda: _labels(),
            [[2, 1, 1], [2, 1, 1], [3, 1, 1], [4, 1, 0]],
        ),
        ByHand("three of four are told", _told, 3),
        ByHand(
            "of three sound ones and one other: a third each, and 1; of one kind alone: 1",
            lambda: [
                weight(Counter({(0, True): 3, (0, False): 1, (1, True): 2}), *which)
                for which in ((0, True), (0, False), (1, True))
            ],
            [1 / 3, 1, 1],
        ),
        OffPolicy(
            "r = log 3 where it is sound, log 3 where it is not: log(4/3) and log 4, the second at half weight",
            ratio=(2.0, 0.5),
            advantage=(0.0, 0.0),
            lengths=(1, 1),
            weights={REWARD: (1.0, 0.5)},
            extras={LABEL: (1.0, 0.0)},
            heads={REWARD: (math.log(3), math.log(3))},
            loss=(math.log(4 / 3) + 0.5 * math.log(4)) / 2,
            gradient=(0.0, 0.0),
        ),
    ),
)

REFINER: Recipe = Recipe(
    name="glore_refiner",
    base=RFT,
    paper=PAPER,
    idea="A policy that can mend a draft in two ways: write a right solution anew with the draft in view, or keep what stands before the "
    "first bad step, which is marked, and go on from there. Both are imitated from its own samples, beside its right answers.",
    equation="L = - mean_t log pi(y*_t | x, draft) - mean_t log pi((s_<k, v)_t | x, draft with [BAD] before s_k) - mean_t log pi(y_t | x), y right",
    departures=(
        "one model drafts and refines both ways, where the paper trains three",
        "a step's soundness is that of this step's own continuations; the paper reuses the data of its SORM",
        "GUESS: the marker stands before the step; the target holds the sound steps again",
    ),
    confidence="memory",
    stages={"group_rollout": stage(verified_steps), "credit": stage(refinements)},
    needs=("text",),
    claim="A draft, a global and a local refinement of which a reward model chooses are right more often than each alone, and than the best "
    "of three drafts.",
    manipulation=(
        Manipulated("one attempt in ten is wrong: there is something to refine", "noted/steps", 0.1),
    ),
    examples=(
        ByHand(
            "the right answer; it again behind the draft; 6 7, the longest that was sound, and 9 9",
            lambda: [len(_refined()), *_refined()[1], *_refined()[2]],
            [3, 5, 6, 7, 9, 9],
        ),
        ByHand("the right answer alone", lambda: _refined(globally=False, locally=False), [[5]]),
        ByHand("the second of two steps is bad", lambda: float(marked(["a;", "b;"], 1) == f"a;{BAD} b;"), 1),
        Reduction(
            "no refinements: rejection-sampling fine-tuning",
            "rft",
            {"credit.globally": False, "credit.locally": False},
        ),
    ),
)

RECIPES = [SORM, REFINER]
