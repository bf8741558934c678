"""SMART: a model learns which way of solving to choose first, from which way led it to the answer in the end.

A problem can be thought through step by step, cut into parts, or computed by a program. The model names a strategy and solves by it;
where it was wrong it is asked for another one, with all that was said in view. What is learnt is the question with the strategy
and the solution that were right, as if they had been chosen at once. Round by round the first choice gets better. SMART:
Self-learning Meta-strategy Agent for Reasoning Tasks, arXiv 2410.16128."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.errors import UserError
from etude.fixtures.given import GivenContext, given_stage
from etude.fixtures.inference import collected
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import attempt_tag, below
from etude.rollout.basic import Attempts
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage, Rollout
from etude.types import Episode, Group, Signal, Task
from etude.update import Update

TRIED = "tried"  # note: the strategies that the attempts named, in order ("" where one named none)
OPENING = "Strategy: "
CHOOSE = (
    "Choose a strategy, name it in the first line as '"
    + OPENING
    + "NAME', and solve the problem by it. Strategies:\n{list}"
)
ANOTHER = "That is not right. Solve the problem by another strategy: {names}."
STRATEGIES = "steps: think step by step|parts: solve simpler questions first|program: write a program and work out what it gives"


def read(strategies: str) -> dict[str, str]:
    """{name: what it is} of "name: what it is|...". Raises UserError for a strategy without a name, or two of one name."""
    parts = [part.partition(":") for part in strategies.split("|") if part.strip()]
    found = {name.strip(): says.strip() for name, _, says in parts}
    if len(found) < len(parts) or not all(re.fullmatch(r"\w+", name) for name in found):
        raise UserError(
            f"rollout.strategies is '{strategies}'; it must be 'name: what it is|name: ...', each name one word and different"
        )
    return found


class Choosing:
    """Attempts until one is right or nothing is left to try, each by the strategy that it names. `strategies` empty: no strategies
    are spoken of."""

    def __init__(
        self,
        strategies: Annotated[
            str, Setting("what can be chosen, as name: what it is|...; empty: nothing is said of it")
        ] = STRATEGIES,
        attempts: Attempts = 3,
    ) -> None:
        self.known, self.attempts = read(strategies), attempts

    def ask(self, task: Task, conversation: Conversation) -> None:
        listed = "\n".join(f"{name}: {says}" for name, says in self.known.items())
        conversation.user(below(task.prompt, CHOOSE.format(list=listed) if listed else ""))

    def named(self, text: str) -> str:
        """The strategy that an attempt names in its first line; "" where it names none that is known."""
        first = (text.strip().splitlines() or [""])[0]
        name = first.removeprefix(OPENING.strip()).strip() if first.startswith(OPENING.strip()) else ""
        return name if name in self.known else ""

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        self.ask(task, conversation)
        tried: list[str] = []
        for number in range(1, self.attempts + 1):
            text = await conversation.reply(attempt_tag(number))
            tried.append(self.named(text))
            left = [name for name in self.known if name not in tried]
            if (await conversation.check(text)).correct or number == self.attempts or not left:
                break
            conversation.user(ANOTHER.format(names=", ".join(left)))
        return conversation.done(**{TRIED: tried})

    def by(self, name: str) -> Rollout:
        """One attempt by this strategy, whose first line is given."""

        async def rollout(task: Task, conversation: Conversation) -> Episode:
            self.ask(task, conversation)
            conversation.force_prefix(conversation.generator.renderer.tokenizer.encode(f"{OPENING}{name}\n"))
            await conversation.check(await conversation.reply(attempt_tag(1)))
            return conversation.done(**{TRIED: [name]})

        return rollout


def every_strategy_first(
    first_share: Annotated[
        float, Setting("share of the run in which all strategies are tried in turn", low=0, high=1)
    ] = 0.2,
) -> GroupRolloutStage:
    """At first attempts by all strategies, one after the other; later as the policy chooses."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        choosing: Any = rollouts.rollout
        names = list(getattr(choosing, "known", ()))
        if rollouts.progress >= first_share or not names:
            return await rollouts.plays(range(rollouts.samples))
        plays = (rollouts.play(i, choosing.by(names[i % len(names)])) for i in range(rollouts.samples))
        return [e for es in await asyncio.gather(*plays) for e in es]

    return group_rollout


def as_first(episode: Episode) -> Episode:
    """The last reply behind the question, as if it had been the first. As it was sampled, where it was the first."""
    last = max(i for i, s in enumerate(episode.spans) if s.role != "assistant")
    if last == 0 or len(episode.verdicts) == 1:
        return episode
    turn = (replace(s, sampled=False, logp=None, tag=attempt_tag(1)) for s in episode.spans[last + 1 :])
    return replace(episode, spans=(episode.spans[0], *turn))


@writes(IMITATION)
class WhatWorked:
    """Imitation of the strategy and the solution that were right in the end, as a first answer; each different one once."""

    def __init__(
        self,
        relabel: Annotated[
            bool, Setting("learn what was right in the end; without, only what was right at once")
        ] = True,
        max_answers: Annotated[int, Setting("most answers per task", "answers", low=1)] = 64,
    ) -> None:
        self.relabel, self.most = relabel, max_answers
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            kept: dict[bytes, Signal] = {}
            for episode in group.episodes:
                if not episode.correct or (len(episode.verdicts) > 1 and not self.relabel):
                    continue
                first = as_first(episode)
                said = np.concatenate([np.full(len(s), s.role == "assistant") for s in first.spans])
                kept.setdefault(first.tokens[said].tobytes(), imitate(first, said))
            signals += list(kept.values())[: self.most]
        self._measure([e for g in groups for e in g.episodes if TRIED in e.notes])
        return signals

    def _measure(self, episodes: Sequence[Episode]) -> None:
        if not episodes:
            return
        first = [e.notes[TRIED][0] for e in episodes]
        self.last = {
            "first_right": float(np.mean([e.verdicts[0].correct for e in episodes])),
            "named": float(np.mean([bool(name) for name in first])),
            **{f"chosen/{name}": first.count(name) / len(first) for name in sorted(set(first)) if name},
        }

    def report(self) -> dict[str, float]:
        """Of the last step's first attempts: the share that is right, that names a strategy, and that names each."""
        return dict(self.last)


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _played(*said: str, progress: float = 1.0, **settings: Any) -> list[Episode]:
    named = {f"rollout.{k}": v for k, v in settings.items()}
    return collected(RECIPE, said, None, named, samples=1 if progress else 2, progress=progress)


def _tried(*said: str, **settings: Any) -> list[int]:
    """How many attempts, and where the strategies that they name stand in the list, from 1 (0: none)."""
    (episode,) = _played(*said, **settings)
    names = list(read(STRATEGIES))
    return [len(episode.verdicts), *(names.index(n) + 1 if n else 0 for n in episode.notes[TRIED])]


def _learnt(*episodes: Episode, **settings: Any) -> list[str]:
    """What is imitated, in order."""
    credit = given_stage(RECIPE, "credit", **settings)
    signals = credit([Group(episodes[0].task, tuple(episodes))], GivenContext())
    return ["".join(chr(t) for t in s.episode.tokens[s.weights[IMITATION] > 0] if t) for s in signals]


STEPS, PARTS = "Strategy: steps\n5", "Strategy: parts\n7"

RECIPE: Recipe = Recipe(
    name="smart",
    base=RFT,
    paper=Paper("SMART: Self-learning Meta-strategy Agent for Reasoning Tasks", "2410.16128", 2024),
    idea="The model names a strategy and solves by it; where it was wrong, it tries another. "
    "It learns the strategy that worked in the end as if it had been its first choice. "
    "So its first choice gets better, and it needs no second.",
    equation="D = {(x, s_k, y_k) : y_k right, y_1..y_{k-1} wrong};  L = - mean_t log pi((s, y)_t | x)",
    stages={
        "rollout": stage(Choosing),
        "group_rollout": stage(every_strategy_first),
        "credit": stage(WhatWorked),
        "update": stage(Update, passes=2, minibatches=4),
    },
    needs=("text",),
    exam={"rollout.attempts": 1},
    departures=(
        "in the first fifth of a run attempts are made by all strategies in turn, their names given; the paper shows eight worked examples of each",
        "a program is worked out in words; the paper runs it. With --tools python the policy may run one",
        "a round is a step, from the last weights; GUESS: wording, and that each attempt counts alike",
        "what was right in the end is learnt as a first choice: the relabelling as the paper's abstract and public summaries have it",
    ),
    confidence="memory",
    claim="Where one sort of problem favours one strategy and another sort another, first attempts get better than with any fixed strategy.",
    manipulation=(Manipulated("half of the attempts name a strategy", r"credit\.named", 0.5, read="last"),),
    examples=(
        ByHand(
            "right at once; by another; nothing named; after three; without strategies",
            lambda: [
                *_tried(PARTS),
                *_tried(STEPS, PARTS),
                *_tried("5", PARTS),
                *_tried(STEPS, PARTS.replace("7", "6"), "Strategy: program\n8"),
                *_tried(STEPS, attempts=1),
                len(_played("7", strategies="")[0].verdicts),
            ],
            [1, 2, 2, 1, 2, 2, 0, 2, 3, 1, 2, 3, 1, 1, 1],
        ),
        ByHand(
            "at first in turn: the first lines are given",
            lambda: float([e.text for e in _played("5", "7", progress=0.0)] == [STEPS, PARTS]),
            1,
        ),
        ByHand(
            "what was right, as a first answer, once; nothing of what was wrong; a given first line as well",
            lambda: float(
                _learnt(*_played(STEPS, PARTS), *_played(PARTS), *_played("5", "6", "8")) == [PARTS]
                and _learnt(*_played("5", "7", progress=0.0)) == [PARTS]
                and _learnt(*_played(STEPS, PARTS), relabel=False) == []
            ),
            1,
        ),
        Reduction(
            "no strategies, one attempt, one pass: rejection-sampling fine-tuning",
            "rft",
            {"rollout.strategies": "", "rollout.attempts": 1, "update.passes": 1, "update.minibatches": 1},
        ),
    ),
)
