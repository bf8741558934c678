"""Learning by teaching: a solution is as good as what a student learns from it.

Several solutions to a problem are drawn. Each is shown, as the one worked example, to a student, who then sits an exam of problems of the
same sort. How many he gets right is the solution's score: it tells sound reasoning from a right answer reached by luck. With the answer's
own correctness it makes pairs for DPO. Can LLMs Learn by Teaching for Better Reasoning? A Preliminary Study, arXiv 2406.14629; exams after
the released scripts (imagination-research/lbt)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from etude.curriculum.base import SourceMixture
from etude.fixtures.curricula import ExampleContext, example_task
from etude.fixtures.examples import example_episode
from etude.fixtures.given import given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.writers import AUXILIARY
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.types import Episode, Group, Message, Request, Signal, Task

EXAM, TAUGHT = "exam", "taught"
"""Meta of a task: the problems of its exam. Note of an attempt: the share of its student's answers that were right."""

EXAMS = 1 << 26  # index of the first exam problem: beyond every other task's
SITTINGS = 1 << 16  # index of the first answer of a student


class WithExams(SourceMixture):
    """The source's own tasks, each with an exam: further problems of its kind and level."""

    def __init__(
        self,
        problems: Annotated[int, Setting("m: problems of an exam; 0: no exams", low=0, high=256)] = 3,
    ) -> None:
        self.problems = problems

    def next(self, n: int, context: Context) -> list[Request]:
        if not self.problems:
            return super().next(n, context)
        return [self._request(context, context.drawn + i) for i in range(n)]

    def _request(self, context: Context, number: int) -> Request:
        task = context.tasks.draw(Request(), number, context.seed)
        like = Request(kind=task.kind, difficulty=self._level(task, context))
        found = []
        for i in range(self.problems):
            problem = context.tasks.draw(like, EXAMS + number * self.problems + i, context.seed)
            if problem.key != task.key:
                found.append(problem)
        return Request(task=replace(task, meta={**task.meta, EXAM: tuple(found)}), why="with an exam")

    def _level(self, task: Task, context: Context) -> float | None:
        """The task's level, where its source has levels at all."""
        levels = getattr(context.tasks, "levels", lambda kind: ())(task.kind)
        return task.difficulty if task.difficulty in levels else None


class Taught:
    """Attempts; for each, the share of the answers of a student that are right, who has seen nothing but this attempt and sits the
    task's exam."""

    def __init__(
        self,
        student: Annotated[
            str,
            Setting(
                "who learns: the policy as it began, as it is, or run.teacher, which may be a weaker model",
                choices=("start", "policy", "teacher"),
            ),
        ] = "start",
        sittings: Annotated[int, Setting("q: times that each exam problem is answered", low=1, high=64)] = 1,
    ) -> None:
        self.student, self.sittings = student, sittings
        self.reads = frozenset({AUXILIARY[student]} if student in AUXILIARY else ())

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        problems: Sequence[Task] = rollouts.task.meta.get(EXAM, ())
        if not problems:
            return episodes
        return list(await asyncio.gather(*(self._sat(rollouts, e, problems) for e in episodes)))

    async def _sat(self, rollouts: GroupRollout, episode: Episode, problems: Sequence[Task]) -> Episode:
        if episode.failure is not None:
            return episode
        table = rollouts
        if self.student in AUXILIARY:
            table = replace(rollouts, generator=rollouts.generators[AUXILIARY[self.student]])
        lesson = (*rollouts.task.prompt, Message("assistant", episode.text))

        async def answer(task: Task, conversation: Conversation) -> Episode:
            conversation.user((*lesson, *task.prompt))
            await conversation.check(await conversation.reply(tag="exam"))
            return conversation.done()

        number = len(problems) * self.sittings
        first = SITTINGS + episode.index * number
        made = await asyncio.gather(
            *(table.play(first + i, answer, problems[i % len(problems)]) for i in range(number))
        )
        right = [e.correct for es in made for e in es if e.failure is None]
        share = float(np.mean(right)) if right else 0.0
        return await rollouts.score(replace(episode, notes={**episode.notes, TAUGHT: share}))

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        told = [(e.notes[TAUGHT], e.correct) for g in groups for e in g.episodes if TAUGHT in e.notes]
        self.last = {}
        for name, kept in (("right", True), ("wrong", False)):
            if shares := [s for s, correct in told if correct is kept]:
                self.last[name] = float(np.mean(shares))

    last: Mapping[str, float] = {}

    def report(self) -> Mapping[str, float]:
        """Of the last step: what students got right who were taught by right attempts, and by wrong ones."""
        return dict(self.last)


def right_and_taught(
    taught_share: Annotated[
        float, Setting("share of the student's score in the reward", low=0, high=1)
    ] = 0.5,
) -> Reward:
    """(1 - w) [right] + w x the share that the student got right; the verdict alone, where there was no exam."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        own, share = episode.verdict.reward, episode.notes.get(TAUGHT)
        if share is None:
            return {"reward": own}
        return {"reward": (1 - taught_share) * own + taught_share * share, "right": own, "taught": share}

    return reward


# ---- numbers ---------------------------------------------------------------------------------------------------------


def _asked(**settings: Any) -> list[float]:
    """Of two tasks: how many problems their exams have, of the same kind, with the task itself among what is drawn third."""
    curriculum = given_stage(RECIPE, "curriculum", **settings)

    def draw(request: Request, index: int, seed: int) -> Task:
        return example_task((request.kind or "a", 0.0), 0 if index in (0, EXAMS + 2) else index)

    requests = curriculum.next(2, ExampleContext(tasks=SimpleNamespace(draw=draw)))
    exams = [r.task.meta[EXAM] if r.task else () for r in requests]
    return [float(len(e)) for e in exams]


def _scored(*said: str, student: Sequence[str], **settings: Any) -> list[float]:
    """The rewards of attempts at "3+4?" with an exam of two such problems."""
    problems = (example_question("2+5?"), example_question("1+6?"))
    task = replace(example_question(), meta={EXAM: problems})
    made = collected(RECIPE, said, {"reference": student}, settings, samples=len(said), task=task)
    return [e.reward for e in made]


RECIPE: Recipe = Recipe(
    name="lbt",
    base=DPO,
    paper=Paper("Can LLMs Learn by Teaching for Better Reasoning? A Preliminary Study", "2406.14629", 2024),
    idea="A solution is shown to a student, who then solves problems of the same sort. "
    "What the student gets right is the solution's score, beside whether its own answer is right. "
    "Better teaching is preferred to worse, so solutions become ones from which one can learn.",
    equation="s(y) = mean_j [student(x, y, x_j) right];  r = (1 - w) [y right] + w s;  L = DPO(argmax r, argmin r)",
    departures=(
        "this is the paper's second method, which trains; the first, which chooses among answers, needs exams with known answers when it is asked, "
        "and the third rewrites prompts: neither is here",
        "exam problems are further ones of the task's kind and level, where the paper varies the numbers of the problem itself or takes the most "
        "similar ones",
        "GUESS: both parts of the reward weigh alike; pairs are the best and the worst of a group",
        "run.group_size solutions and 3 problems answered once; the paper has 32 and more solutions and answers 3 times",
        "the student is the policy as it began unless run.teacher is asked",
    ),
    stages={
        "curriculum": stage(WithExams),
        "group_rollout": stage(Taught),
        "reward": stage(right_and_taught),
    },
    needs=("text",),
    claim="Preferring what teaches well ends above preferring what is right, at equally many pairs.",
    manipulation=(
        PREFERRED,
        Manipulated("a student gets one exam problem in twenty right", "score/taught", 0.05),
    ),
    examples=(
        ByHand(
            "three problems, and two where one was the task itself; none",
            lambda: [*_asked(), *_asked(problems=1)],
            [2, 3, 1, 1],
        ),
        ByHand(
            "right, and one of two: (1 + 1/2) / 2; wrong, and both: 1/2; at w = 1/4",
            lambda: [
                *_scored("7", student=("7", "no")),
                *_scored("5", student=("7", "7")),
                *_scored("7", student=("7", "no"), **{"reward.taught_share": 0.25}),
            ],
            [0.75, 0.5, 0.875],
        ),
        ByHand(
            "each problem answered twice: three of four",
            lambda: _scored("7", student=("7", "7", "7", "5"), **{"group_rollout.sittings": 2}),
            [0.875],
        ),
        ByHand(
            "no exam: the verdict",
            lambda: given_stage(RECIPE, "reward")(example_episode(1.0))["reward"],
            1,
        ),
        Reduction("no exams: DPO on answers that are right and wrong", "dpo", {"curriculum.problems": 0}),
    ),
)
