"""SOAR: a tutor is paid by how much better its student does on problems that it could not solve.

Where every attempt fails there is nothing to reinforce. A tutor writes small sets of problems with their answers; the student practises on one
set at a time, always from the same weights, and is examined before and after. What it gained is the tutor's reward, whatever the problems look
like. A set that helped enough is kept, and so is the student that it made. Teaching Models to Teach Themselves, arXiv 2601.18778."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import constant, each, leave_one_out
from etude.curriculum.written import MostKept, Near, News, Written, WrittenTasks
from etude.fixtures.curricula import ExampleContext, attempts_at, built, example_task, example_tasks
from etude.fixtures.given import GivenModel
from etude.objective.policy import plain
from etude.recipe import AuxiliaryModel, ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.tasks import TaskSet
from etude.tasks.check import NoText
from etude.tasks.posed import with_answer
from etude.types import Array, Episode, Group, Message, Request, Signal, Task

TUTOR, BASELINE, BEST = "tutor", "baseline", "best"
TEACH, EXAM, LESSON, FINAL = "teach", "exam", "lesson", "final"
WROTE = "wrote"
"""Note of a text of the tutor's: the task that could be read in it."""

ASK = "Write a problem for a student to practise on, and its answer.\nProblem: ...\nAnswer: ..."


# ---- what the tutor is paid ------------------------------------------------------------------------------------


def tutor_advantages(gains: Array, of: Sequence[int], readable: Sequence[bool]) -> list[float]:
    """A = R - mean_{j != k} R_j for each text of set k, R = gains[k] where it can be read as a problem, else min(0, all gains).
    `gains` f64[g]; `of`: the set of each text."""
    others = [np.delete(gains, k).mean() if len(gains) > 1 else 0.0 for k in range(len(gains))]
    worst = min(0.0, float(gains.min()))
    return [float((gains[k] if fine else worst) - others[k]) for k, fine in zip(of, readable, strict=True)]


# ---- curriculum: write, examine, then practise on one set after the other --------------------------------------------


class Lessons:
    """One round: the tutor writes, the student is examined; then for each set the student practises `practice` steps from the
    baseline's weights and is examined again, greedily on the same problems. After it the tutor learns, and the student begins
    the next round from the baseline. From `final_at` on it practises on what was kept and on the hard problems by turns."""

    def __init__(
        self,
        sets: Annotated[int, Setting("g, sets of problems in a round", low=2, high=64)] = 4,
        practice: Annotated[int, Setting("steps of practice on a set", "steps", low=1)] = 10,
        promote_above: Annotated[
            float, Setting("tau, mean gain of three rounds above which the best student is promoted")
        ] = 0.01,
        final_at: Annotated[
            float, Setting("share of the run at which teaching ends and the hard is trained", low=0, high=1)
        ] = 0.75,
        near: Near = 1.0,
        most_kept: MostKept = 16384,
    ) -> None:
        self.sets, self.practice, self.tau = sets, practice, promote_above
        self.final_at, self.final = final_at, final_at <= 0
        self.written = WrittenTasks(near, most_kept)
        self.round: list[tuple[str, int]] = []  # what its steps are for, and of which set; -1: the baseline
        self.texts: list[tuple[Episode, int]] = []  # the tutor's, and their sets
        self.lessons: list[list[Task]] = []  # the problems of each set
        self.exam: list[Task] = []
        self.scores: dict[int, float] = {}  # accuracy after each set; -1: before any
        self.means: list[float] = []  # of the last rounds' gains
        self.kept: list[Task] = []  # of the sets that were promoted
        self.last: dict[str, float] = {}

    def prepare(self, tasks: TaskSet) -> None:
        """The hardest level of every kind is what is to be learnt; of the easiest the tutor may be shown a problem."""
        self.hard = [(kind, max(tasks.levels(kind), default=0.0)) for kind in tasks.kinds]
        self.easy = [(kind, min(tasks.levels(kind), default=0.0)) for kind in tasks.kinds]

    def next(self, n: int, context: Context) -> list[Request]:
        numbers = range(context.drawn, context.drawn + n)
        hard, easy = ([levels[i % len(levels)] for i in numbers] for levels in (self.hard, self.easy))
        if self.final:
            draws = context.rng("kept", context.drawn).integers(max(1, len(self.kept)), size=n)
            return [
                Request(task=self.kept[k], purpose=FINAL) if self.kept and i % 2 else Request(*level)
                for i, k, level in zip(numbers, draws, hard, strict=True)
            ]
        what, k = (self.round or [(TEACH, -1)])[0]
        if what == TEACH:
            return [Request(*level, purpose=TEACH, why=TEACH) for level in easy]
        if what == EXAM and k < 0:
            return [Request(*level, samples=1, purpose=EXAM, why=EXAM) for level in hard]
        if what == EXAM:
            return [Request(task=task, samples=1, purpose=EXAM, why=EXAM) for task in self.exam[:n]]
        chosen = context.rng("practice", context.drawn).integers(len(self.lessons[k]), size=n)
        return [Request(task=self.lessons[k][j], purpose=LESSON, why=f"set {k}") for j in chosen]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.written.judge(groups)
        if self.final:
            return
        (self._go_on if self.round else self._read)(groups, context)
        if context.progress >= self.final_at:
            self.final, self.round = True, []
            context.learner.become(context.auxiliary[BASELINE])

    def _read(self, groups: Sequence[Group], context: Context) -> None:
        """Sorts what the tutor wrote into sets, and lays out the round."""
        self.texts = [(e, i % self.sets) for i, group in enumerate(groups) for e in group.episodes]
        self.lessons = [[] for _ in range(self.sets)]
        for episode, k in self.texts:
            task = episode.notes.get(WROTE)
            if task is not None and self.written.add(Written.by(episode, task, context.step), context):
                self.lessons[k].append(task)
        fine = [WROTE in e.notes for e, _ in self.texts]
        self.last |= {"readable": float(np.mean(fine)) if fine else 0.0}
        self.scores, self.exam = {}, []
        self.round = [(EXAM, -1)]
        for k in range(self.sets):
            if self.lessons[k]:  # an empty one teaches nothing: its gain is 0
                self.round += [(LESSON, k)] * self.practice + [(EXAM, k)]

    def _go_on(self, groups: Sequence[Group], context: Context) -> None:
        what, k = self.round.pop(0)
        if what == EXAM:
            tries = [e.correct for g in groups for e in g.episodes]
            self.scores[k] = float(np.mean(tries)) if tries else 0.0
            if k < 0:
                self.exam = [g.task for g in groups]
            else:
                if self.scores[k] >= max(self.scores.values()):
                    context.auxiliary[BEST].become(context.learner)
                context.learner.become(context.auxiliary[BASELINE])
        if not self.round:
            self._settle(context)

    def _settle(self, context: Context) -> None:
        """R(X_k) = Acc(the student after X_k) - Acc(before); the tutor's update, and the promotion."""
        gains = np.array([self.scores.get(k, self.scores[-1]) - self.scores[-1] for k in range(self.sets)])
        worth = tutor_advantages(gains, [k for _, k in self.texts], [WROTE in e.notes for e, _ in self.texts])
        lesson = [constant(e, a) for (e, _), a in zip(self.texts, worth, strict=True)]
        if any(worth):
            context.auxiliary[TUTOR].learn(plain(), lesson, context.step, context.progress)
        self.means = [*self.means, float(gains.mean())][-3:]
        best = int(gains.argmax())
        promoted = float(np.mean(self.means)) > self.tau and gains[best] > 0
        if promoted:
            context.auxiliary[BASELINE].become(context.auxiliary[BEST])
            context.learner.become(context.auxiliary[BASELINE])
            self.kept += self.lessons[best]
        self.last |= {
            "gain": float(gains.mean()),
            "best_gain": float(gains.max()),
            "promoted": float(promoted),
        }
        self.last |= {"before": self.scores[-1]}
        self.texts = []

    def news(self) -> list[News]:
        return self.written.news()

    def report(self) -> Mapping[str, float]:
        """Of the last round: the share of texts that are a problem with an answer, the students' accuracy before it, their mean and
        best gain, and whether one was promoted; how many problems were kept, and how many the tutor is asked for next."""
        found = {"readable": 0.0, "kept": float(len(self.kept)), "left_in_round": float(len(self.round))}
        return {**found, **self.last, **self.written.report()}

    def state_dict(self) -> dict[str, Any]:
        names = ("final", "round", "texts", "lessons", "exam", "scores", "means", "kept", "last")
        held = {name: getattr(self, name) for name in names}
        copies = {n: type(v)(v) if isinstance(v, list | dict) else v for n, v in held.items()}
        return {**copies, "written": self.written.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.written.load_state_dict(state["written"])
        for name, value in state.items():
            if name != "written":
                setattr(self, name, value)


# ---- group rollout: who speaks ---------------------------------------------------------------------------------------


def taught(
    lesson_request: Annotated[
        str, Setting("how the tutor is asked; {question} in it stands for a problem of the easiest level")
    ] = ASK,
) -> GroupRolloutStage:
    """The tutor's texts where they are asked for; greedy attempts where the student is examined; attempts elsewhere."""

    async def greedy(task: Task, conversation: Any) -> Episode:
        conversation.user(task.prompt)
        await conversation.check(await conversation.reply(greedy=True))
        episode: Episode = conversation.done()
        return episode

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        purpose = rollouts.request.purpose
        if purpose == EXAM:
            return await rollouts.plays(range(rollouts.samples), greedy)
        if purpose != TEACH:
            return await rollouts.plays(range(rollouts.samples))
        example = rollouts.task
        asked = lesson_request.replace("{question}", example.prompt[-1].content)
        rollouts.task = Task(
            (Message("user", asked),), NoText("a lesson"), kind=TEACH, meta={"source": example.key}
        )

        async def write(task: Task, conversation: Any) -> Episode:
            talk = rollouts.conversation(conversation.index, task, rollouts.generators[TUTOR])
            talk.user(task.prompt)
            found = with_answer(example, await talk.reply(tag=TEACH))
            fine = found is not None and rollouts.admits(found)
            return talk.done(**({WROTE: found} if fine else {}))

        return await rollouts.plays(range(rollouts.samples), write)

    return group_rollout


# ---- credit: the student's alone --------------------------------------------------------------------------------------


def students() -> Credit:
    """RLOO on practice; exams and the tutor's texts teach the student nothing."""
    own = each(leave_one_out)

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        return own([g for g in groups if g.request.purpose not in (TEACH, EXAM)], context)

    return credit


# ---- the recipe -----------------------------------------------------------------------------------------------------


def _step(purpose: str, *groups: Sequence[float], wrote: bool = False) -> list[Group]:
    made = []
    for i, rewards in enumerate(groups):
        group = attempts_at(("a", 1.0), rewards, i)
        notes = {WROTE: example_task(("written", 0.0), i)} if wrote else {}
        episodes = tuple(replace(e, notes=notes) for e in group.episodes)
        made.append(replace(group, episodes=episodes, request=Request(purpose=purpose)))
    return made


def _taught(*right: int, **settings: Any) -> tuple[Lessons, ExampleContext]:
    """After a round of two sets of one step each, in which so many of 4 were right: before, after the first, after the second."""
    lessons: Lessons = built(RECIPE, "curriculum", {"sets": 2, "practice": 1, **settings})
    lessons.prepare(example_tasks(("a", 0.0), ("a", 1.0)))
    context = ExampleContext(
        learner=GivenModel(), auxiliary={n: GivenModel() for n in (TUTOR, BASELINE, BEST)}
    )

    def examined(number: int) -> None:
        lessons.observe(_step(EXAM, *[[float(i < number)] for i in range(4)]), [], context)

    lessons.observe(_step(TEACH, [0.0], [0.0], wrote=True), [], context)
    examined(right[0])
    for number in right[1:]:
        context.learner.value += number  # what practice made of it
        lessons.observe(_step(LESSON, [1.0, 0.0]), [], context)
        examined(number)
    return lessons, context


def _paid(*right: int) -> list[float]:
    _, context = _taught(*right)
    return [float(s.advantage[0]) for _, signals in context.auxiliary[TUTOR].lessons for s in signals]


def _left(*right: int, **settings: Any) -> list[float]:
    """The weights of the baseline and of the student after the round, how many problems were kept, and how many the tutor is asked for next."""
    lessons, context = _taught(*right, **settings)
    asked = [r.purpose for r in lessons.next(4, context)].count(TEACH)
    return [context.auxiliary[BASELINE].value, context.learner.value, len(lessons.kept), asked]


RECIPE: Recipe = Recipe(
    name="soar",
    paper=Paper(
        "Teaching Models to Teach Themselves: Reasoning at the Edge of Learnability", "2601.18778", 2026
    ),
    idea="Where a student solves nothing, its own attempts teach it nothing. A tutor writes sets of problems with their answers, and is paid "
    "by how much better the student does on the hard problems after practising on a set. So the tutor learns what helps, not what looks good.",
    equation="R(X_k) = Acc(student trained on X_k) - Acc(student);  A_k = R_k - mean_{j != k} R_j;  the student: RLOO on X_k, anew for every set",
    departures=(
        "R is the gain of one training, where the paper averages several (r is not known); an exam has run.tasks_per_step problems",
        "GUESS: g = 4 sets. A set is what the tutor wrote in one step: run.tasks_per_step x run.group_size / g texts at most, each asked for alone",
        "GUESS: a text that is no problem with an answer is paid min(0, all gains)",
        "where the answer of a written problem can be computed it is (tasks.posed), and else it is what the tutor says, as in the paper",
        "at the end the baseline's student goes on with the kept problems and the hard ones by turns; the paper trains a fresh one",
        "the hard set is the hardest level of every kind; the tutor's request shows none of it",
        "it keeps three further models in memory: the tutor, the baseline and the round's best student; an evaluation on the way examines whoever "
        "practises just then",
    ),
    stages={
        "curriculum": stage(Lessons),
        "group_rollout": stage(taught),
        "reward": stage(optional_verdict),
        "credit": stage(students),
        "objective": stage(plain),
    },
    auxiliary={
        TUTOR: AuxiliaryModel("copy", lr=1.0, sampled=True),
        **dict.fromkeys((BASELINE, BEST), AuxiliaryModel("copy")),
    },
    needs=("text",),
    claim="Problems paid by progress unlock a level that direct reinforcement never solves.",
    manipulation=(Manipulated("a tenth of the texts are problems", r"curriculum\.readable", 0.1),),
    examples=(
        ByHand("1 of 4 before, 3 and 1 after: gains 1/2 and 0", lambda: _paid(1, 3, 1), [0.5, -0.5]),
        ByHand("2, 1 and 4 of 4: gains -1/4 and 1/2", lambda: _paid(2, 1, 4), [-0.75, 0.75]),
        ByHand("no gain, no update", lambda: len(_paid(2, 2, 2)), 0),
        ByHand(
            "a text that is no problem: gains 1/2, 1/4 pay it 0; gains -1/2, 1/4 pay it -1/2",
            lambda: [
                *tutor_advantages(np.array([0.5, 0.25]), [0, 1, 1], [True, True, False]),
                *tutor_advantages(np.array([-0.5, 0.25]), [1], [False]),
            ],
            [0.25, -0.25, -0.5, 0.0],
        ),
        ByHand(
            "the better student, 3, is the next baseline; its set is kept",
            lambda: _left(1, 3, 1),
            [3, 3, 1, 4],
        ),
        ByHand(
            "a mean gain of 1/4 is not above 0.3", lambda: _left(1, 3, 1, promote_above=0.3), [0, 0, 0, 4]
        ),
        ByHand(
            "exams and the tutor's texts are not learnt from",
            lambda: [len(built(RECIPE, "credit")(_step(p, [1.0, 0.0]), None)) for p in (EXAM, LESSON)],
            [0, 2],
        ),
        Credited("1 of 3 right: 1 - 0, 0 - 1/2", [[1.0, 0, 0]], [[1.0, -0.5, -0.5]]),
        OffPolicy(
            "no ratio; summed over tokens",
            ratio=(3.0, 0.2),
            advantage=(1.0, -0.5),
            lengths=(1, 1),
            loss=(-(-1 + np.log(3)) + 0.5 * (-1 + np.log(0.2))) / 2,
            gradient=(-0.5, 0.25),
        ),
        Reduction("practice: RLOO", "rloo"),
    ),
)
