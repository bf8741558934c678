"""SPOC: solution, own verdict on it, next solution, in one go, and each message credited by itself.

The policy answers, then says whether that is right; where it says no it answers again. A solution earns whether it is right, a
verdict whether it is the truth, and all messages of all episodes of a task are compared with each other. Boosting LLM Reasoning
via Spontaneous Self-Correction, arXiv 2506.06923."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude.credit.attempts import on_parts
from etude.credit.group import EPSILON
from etude.fixtures.attempts import advantages_of, credited_signals, example_attempts
from etude.objective.policy import plain
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.attempts import each_attempt
from etude.rollout.attempts import attempt, attempt_tag
from etude.rollout.conversation import Conversation
from etude.rollout.second import worded
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Rollout
from etude.types import Episode, Group, Message, Signal, Task

# ---- rollout: y_1, v_1, y_2, v_2, ... until v says yes ------------------------------------------------------------

VERIFY = "Check the answer line by line. Say in a few words whether it is right and why, then say Yes or No."
ONCE_MORE = "Answer the question anew."
SAID = "said"
"""Note: what each verdict of the policy's said, 1 yes, 0 no, -1 neither."""


def verdict_tag(number: int) -> str:
    """The tag of the verdict on attempt `number`."""
    return f"verdict {number}"


def read_verdict(text: str) -> int:
    """1 for Yes, 0 for No, by the last such word; -1 where there is none."""
    found = re.findall(r"\b(yes|no)\b", text, re.IGNORECASE)
    return -1 if not found else int(found[-1].lower() == "yes")


def propose_and_verify(
    solutions: Annotated[int, Setting("L, solutions at most", low=1, high=16)] = 3,
    verify: Annotated[bool, Setting("ask for verdicts; without, one solution")] = True,
    verify_request: Annotated[str, Setting("how a verdict is asked for")] = VERIFY,
    once_more: Annotated[str, Setting("how the next solution is asked for")] = ONCE_MORE,
) -> Rollout:
    """Solutions and verdicts by turns in one conversation, to the first Yes."""
    ask, again = worded(verify_request), worded(once_more)

    async def rollout(task: Task, conversation: Conversation) -> Episode:
        said, answers = task.prompt, []
        for number in range(1, solutions + 1):
            await attempt(conversation, said, number)
            if not verify or task.environment is not None:
                break
            conversation.user(ask)
            answers.append(read_verdict(await conversation.reply(verdict_tag(number))))
            if answers[-1] == 1 or number == solutions:
                break
            said = (Message("user", again),)
        return conversation.done(**({SAID: answers} if verify else {}))

    return rollout


# ---- credit: every message by its own reward ----------------------------------------------------------------------


def rewards_of_messages(episode: Episode) -> dict[str, float]:
    """{tag: reward}: of a solution, that of its verdict; of a verdict, whether it says what the checker said."""
    found = {attempt_tag(i): v.reward for i, v in enumerate(episode.verdicts, 1)}
    for i, (said, truth) in enumerate(zip(episode.notes.get(SAID, ()), episode.verdicts, strict=False), 1):
        found[verdict_tag(i)] = float(said == int(truth.correct))
    return found


def message_relative(
    std: Annotated[bool, Setting("divide by the standard deviation of the messages' rewards")] = True,
) -> Credit:
    """A_m = (r_m - mean r) / (std r + 1e-4), mean and std over all messages of all episodes of a task. An episode of another
    rollout, without parts, is one message."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        signals = []
        for group in groups:
            rewards = [rewards_of_messages(e) for e in group.episodes]
            pooled = np.array([r for found in rewards for r in found.values()])
            mean, scale = pooled.mean() if len(pooled) else 0.0, pooled.std() + EPSILON if std else 1.0
            for episode, found in zip(group.episodes, rewards, strict=True):
                parts = {tag: float((r - mean) / scale) for tag, r in found.items()}
                known = {span.tag for span in episode.spans}
                whole = parts if known & set(parts) else {"": next(iter(parts.values()), 0.0)}
                signals.append(on_parts(episode, whole))
        return signals

    return credit


# ---- the recipe -----------------------------------------------------------------------------------------------------


def _two() -> list[Signal]:
    """Credit of two episodes: right, and said so; wrong, said so, then right, and denied."""
    from dataclasses import replace

    from etude.types import Span

    def with_verdicts(rewards: Sequence[float], said: Sequence[int]) -> Episode:
        made = example_attempts(*rewards)
        extra = [
            Span("assistant", np.array([9], np.int32), True, -np.ones(1, np.float32), tag=verdict_tag(i))
            for i in range(1, len(said) + 1)
        ]
        return replace(made, spans=(*made.spans, *extra), notes={**made.notes, SAID: list(said)})

    return credited_signals(RECIPE, [with_verdicts([1.0], [1]), with_verdicts([0.0, 1.0], [0, 0])])


# Rewards of the messages: solution 1, verdict 1; solutions 0 and 1, verdicts 1 and 0. Mean 2/3, std sqrt(2)/3.
_STD = math.sqrt(2) / 3 + EPSILON

RECIPE = Recipe(
    name="spoc",
    paper=Paper("Boosting LLM Reasoning via Spontaneous Self-Correction", "2506.06923", 2025),
    published_lr=1e-6,
    idea="The policy answers, says itself whether that is right, and answers again until it says yes. Answers are rewarded for being "
    "right, verdicts for being true. Every message is compared with all other messages about the same task.",
    equation="r(y_l) = 1[right], r(v_l) = 1[v_l true];  A_m = (r_m - mean r) / (std r + 1e-4) over messages;  L = - mean_i sum_m sum_t A_m log pi",
    departures=(
        "between two messages stands a short request of the user's, where the paper's policy goes on by itself, with other end tokens",
        "the paper's first stage (PairSFT, which teaches the form) is not here: the requests ask for it; `sft` on such conversations is its place",
        "of the paper's two algorithms, the policy gradient; RAFT on the best of K is `rft`",
        "a solution's reward is the checker's own, which may be partial",
    ),
    stages={
        "rollout": stage(propose_and_verify),
        "reward": stage(each_attempt),
        "credit": stage(message_relative),
        "objective": stage(plain),
    },
    needs=("text",),
    claim="Verdicts become truer, and the last answer right more often than the first.",
    manipulation=(Manipulated("one episode in twenty answers again", "attempts/again", 0.05, read="max"),),
    examples=(
        ByHand(
            "yes, no, neither; the last word counts",
            lambda: [read_verdict(t) for t in ("Yes.", "no", "hm", "No... yes")],
            [1, 0, -1, 1],
        ),
        ByHand(
            "first solutions: 1 and 0, less the mean 2/3",
            lambda: advantages_of(_two(), attempt_tag(1)),
            [1 / 3 / _STD, -2 / 3 / _STD],
        ),
        ByHand("the second solution: 1", lambda: advantages_of(_two(), attempt_tag(2)), [1 / 3 / _STD]),
        ByHand(
            "verdicts: true, true (of a wrong one, no), false (of a right one, no)",
            lambda: advantages_of(_two(), verdict_tag(1)) + advantages_of(_two(), verdict_tag(2)),
            [1 / 3 / _STD, 1 / 3 / _STD, -2 / 3 / _STD],
        ),
        Credited("attempts without verdicts: 1 of 2 right", [[1.0, 0.0]], [[0.5 / 0.5001, -0.5 / 0.5001]]),
        OffPolicy(
            "no ratio, no clip; summed over two tokens, mean over two episodes",
            ratio=(3.0, 1.0, 0.2),
            advantage=(0.5, 0.5, -0.5),
            lengths=(2, 1),
            loss=(-0.5 * (-1 + math.log(3)) - 0.5 * -1 + 0.5 * (-1 + math.log(0.2))) / 2,
            gradient=(-0.25, -0.25, 0.25),
        ),
        Reduction(
            "one solution and no verdict: GRPO, summed over tokens",
            "grpo",
            {"rollout.verify": False},
            {"objective.mean": "sum"},
        ),
    ),
)
