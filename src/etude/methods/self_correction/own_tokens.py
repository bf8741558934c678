"""Learning from solutions with one's own tokens in view: scheduled sampling, and correction towards the reference.

Fine-tuning predicts the next token after a perfect beginning; in use the beginning is the model's own. Two ways to close that
gap, both of which sample beforehand and then train by plain cross-entropy. Batch-scheduled sampling replaces some tokens of
the solution, in what the model reads, by tokens that it says there itself. Reference-answer-based correction lets the model
answer, and teaches the solution behind that answer. Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated
Tokens, arXiv 2410.14655."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown, tagged
from etude.fixtures.attempts import credited_signals, example_attempts
from etude.fixtures.given import GivenContext, beyond_prompt, example_demonstration, given_stage
from etude.methods.imitation.masked_thought import READ, cross_entropy_with_holes, masked_now
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import verdict_if_any
from etude.rollout.attempts import Share, attempt, attempt_tag, due
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.demonstrations import demonstration_and_attempts
from etude.rollout.group_rollout import DEMONSTRATION, GroupRollout
from etude.rollout.probe import noting
from etude.rollout.second import RECONSIDER, Again, worded
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage, Rollout
from etude.types import Array, Episode, Group, Message, Signal, Span, Task

PAPER = Paper(
    "Bridging the Training-Inference Gap in LLMs by Leveraging Self-Generated Tokens", "2410.14655", 2024
)

# ---- batch-scheduled sampling: m_t = y*_t with probability 1 - eps, else m_t ~ pi( . | x, m_<t) ------------------------


def runs(own: Array) -> list[tuple[int, int]]:
    """(begin, end) of every run of neighbours that are true in bool[T]."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], own, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[0::2], edges[1::2], strict=True)]


def mixed(
    own_share: Annotated[
        float, Setting("eps, share of the solution's tokens that the model says itself", low=0, high=1)
    ] = 0.3,
    ramp_share: Annotated[float, Setting("share of the run over which it rises from 0", low=0, high=1)] = 0.5,
) -> GroupRolloutStage:
    """The demonstration; its note `READ` holds the tokens of the mixture, place by place. Each run of own tokens is sampled after
    the mixture before it; where the model ends its reply there, the rest of the run stays the demonstration's."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        share = masked_now(rollouts.progress, own_share, ramp_share)

        async def look(episode: Episode) -> dict[str, Any]:
            draw = seeds.generator(rollouts.key, "own").random(len(episode.tokens))
            own = tagged(episode, DEMONSTRATED) & (draw < share)
            own[-1] = False  # nothing is predicted after the last token
            read = episode.tokens.copy()
            for begin, end in runs(own):
                line = rollouts.conversation(DEMONSTRATION + begin)
                line.adopt([Span("user", read[:begin])])
                await line.reply(tag="own", max_tokens=end - begin)
                said = line.spans[-1].tokens[: end - begin]
                read[begin : begin + len(said)] = said
            return {READ: read.tolist()}

        return await noting(rollouts, [rollouts.demonstrate()], look)

    return group_rollout


@writes(IMITATION, extras=(READ,))
def with_own_tokens() -> Credit:
    """Imitation of the demonstrations, token by token after the mixture (extra `READ`)."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = shown(groups)
        rows = [s.episode.notes.get(READ, s.episode.tokens) for s in signals]
        return [
            replace(s, extras={READ: np.array(row, np.float32)}) for s, row in zip(signals, rows, strict=True)
        ]

    return credit


# ---- reference-answer-based correction: y^ ~ pi( . | x), then y* after [x, y^] ---------------------------------------


def answer_then_reference(
    second: Share = 1.0,
    reference: Annotated[
        bool, Setting("the second answer is the task's solution; else the policy's own")
    ] = True,
    again: Again = RECONSIDER,
) -> Rollout:
    """An attempt; then, without a word on whether it was right, the task's solution in the same conversation, not checked; or,
    as it is examined, a second attempt of the policy's own."""
    wording = worded(again, "question")

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        await attempt(conversation, task.prompt, 1)
        if due(conversation, second):
            said = (Message("user", wording.format(question=task.prompt[-1].content)),)
            if reference:
                conversation.user(said)
                conversation.inject(task.reference or task.answer or "", attempt_tag(2))
            else:
                await attempt(conversation, said, 2)
        return conversation.done()

    return rollout


@writes(IMITATION)
def corrections(
    demonstrations: Annotated[bool, Setting("also imitate the solution behind the bare question")] = True,
) -> Credit:
    """Imitation of the solution, behind the question and behind each different answer of the policy's."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = shown(groups) if demonstrations else []
        for group in groups:
            answers = set[bytes]()
            for episode in group.episodes:
                corrected = tagged(episode, attempt_tag(2)) & ~episode.sampled
                words = episode.tokens[tagged(episode, attempt_tag(1))].tobytes()
                if corrected.any() and words not in answers:
                    signals.append(imitate(episode, corrected))
                answers.add(words)
        return signals

    return credit


# ---- the recipes -----------------------------------------------------------------------------------------------------

SHOWN = example_demonstration((5, 6, 7))


def _read(**notes: Any) -> list[float]:
    """What is read of a solution 5, 6, 7, whose note may say otherwise."""
    episode = replace(SHOWN, notes=notes)
    group = Group(SHOWN.task, (), demonstrations=(episode,))
    return beyond_prompt(given_stage(SCHEDULED, "credit")([group], GivenContext()), READ)


def _corrected() -> list[list[float]]:
    """The row `IMITATION` of a group of three answers, the first two of which are alike, each followed by a solution of two
    tokens."""
    episodes = []
    for first in (3, 3, 4):
        made = example_attempts(0.0, 0.0)
        one, two = made.spans[1], made.spans[3]
        words = replace(one, tokens=np.array([first], np.int32))
        told = replace(two, sampled=False, logp=None)
        episodes.append(
            replace(made, spans=(made.spans[0], words, replace(made.spans[2], restart=False), told))
        )
    return [s.weights[IMITATION].tolist() for s in credited_signals(CORRECTION, episodes)]


SCHEDULED = Recipe(
    name="scheduled_sampling",
    base=SFT,
    paper=PAPER,
    idea="The model predicts every token of the solution, but in what it reads some of them are its own, sampled after what stood "
    "before. So it learns how to go on to the right answer after a beginning like those that it writes itself.",
    equation="L = - mean_t log pi(y*_t | x, m_<t),  m_t = y*_t with probability 1 - eps, else m_t ~ pi(. | x, m_<t)",
    departures=(
        "GUESS: eps = 0.3, rising from 0 over the first half of the run; a token of the mixture stands at the place of the token that it "
        "replaces",
        "mixtures are drawn anew at every step by the policy as it is then, where the paper draws batches of them offline",
    ),
    confidence="guess",
    stages={
        "group_rollout": stage(mixed),
        "reward": stage(verdict_if_any),
        "credit": stage(with_own_tokens),
        "objective": stage(cross_entropy_with_holes),
    },
    needs=("text",),
    claim="The gap between accuracy with right beginnings and with its own shrinks on chained arithmetic, and accuracy exceeds that of SFT.",
    manipulation=(
        Manipulated("one token in two hundred that is read is not the solution's", "replaced", 0.005),
    ),
    examples=(
        ByHand(
            "runs of own tokens: the second; the fourth and the fifth",
            lambda: runs(np.array([False, True, False, True, True])),
            [[1, 2], [3, 5]],
        ),
        ByHand(
            "the mixture is read, or the solution where none was noted",
            lambda: [_read(), _read(read=[1, 5, 9, 7])],
            [[5, 6, 7], [5, 9, 7]],
        ),
        OffPolicy(
            "the solution's tokens are predicted, whatever is read: log pi = -1 + ln 2 and -1",
            ratio=(2.0, 1.0),
            advantage=(0.0, 0.0),
            weights={IMITATION: (1.0, 1.0)},
            extras={READ: (1.0, 0.0)},
            loss=((1 - math.log(2)) + 1) / 2,
            gradient=(-1 / 2, -1 / 2),
        ),
        Reduction("no own tokens: SFT", "sft", {"group_rollout.own_share": 0.0}),
    ),
)

CORRECTION = Recipe(
    name="reference_correction",
    base=SFT,
    paper=PAPER,
    idea="The model answers, right or wrong, and is taught the task's solution as what it should say when asked to look again. "
    "Nobody says whether the answer was right, and no critic is needed. "
    "The solution to the bare question is imitated as well.",
    equation="L = - mean_t log pi(y*_t | x) - mean_t log pi(y*_t | x, y^),  y^ ~ pi(. | x), over all tokens alike",
    departures=(
        "GUESS: the correction stands in a turn of its own, after a short request; the target is the solution itself",
        "GUESS: the solution to the bare question is imitated too, and equal answers to a task are corrected once",
        "answers are sampled anew at every step; the paper samples them offline",
    ),
    confidence="guess",
    stages={
        "rollout": stage(answer_then_reference),
        "group_rollout": stage(demonstration_and_attempts),
        "reward": stage(verdict_if_any),
        "credit": stage(corrections),
    },
    exam={"rollout.reference": False},
    needs=("text",),
    claim="Asked to look again, the model mends more than it spoils, which it does not after fine-tuning on the solutions alone.",
    manipulation=(
        Manipulated(
            "a tenth of the answers are wrong: there is something to correct", "correct", at_most=0.9
        ),
    ),
    examples=(
        ByHand(
            "of three answers, two of them alike, two are corrected: prompt, answer, request, solution",
            _corrected,
            [[0, 0, 0, 0, 0, 1, 1]] * 2,
        ),
        Reduction("nothing is corrected: SFT", "sft", {"rollout.second": 0.0}),
    ),
)

RECIPES = [SCHEDULED, CORRECTION]
