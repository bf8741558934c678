"""A task that a tiny model can learn in seconds: say the first letter of a word of four."""

from __future__ import annotations

import itertools
from pathlib import Path

from etude.methods import find
from etude.models.tiny import tiny_directory
from etude.tasks import TaskSet
from etude.tasks.check import NoText
from etude.testing.few import few
from etude.train.config import Budget, Plan
from etude.types import Message, Task, Verdict

LETTERS = "abcd"


class First:
    """Right iff the answer begins with the letter. Picklable."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def __call__(self, answer: str) -> Verdict:
        right = answer.strip()[:1] == self.letter
        return Verdict(float(right), right, "" if right else f"It begins with {self.letter}.")


def words() -> TaskSet:
    tasks = [
        Task(
            (Message("user", word),),
            First(word[0]),
            kind="first",
            difficulty=float(len(set(word))),
            answer=word[0],
            reference=word[0],
            hints=(word[0],),
        )
        for word in map("".join, itertools.product(LETTERS, repeat=4))
    ]
    return TaskSet.of(tasks)


class Pair:
    """A world of two turns: a word each, won with both. Picklable, and its own episode maker."""

    def __init__(self, *problems: Task) -> None:
        self.problems, self.wrong, self.done = problems, [], 0

    def __call__(self, seed: int = 0) -> Pair:
        return Pair(*self.problems)

    def observe(self) -> str:
        return ""

    def act(self, text: str) -> tuple[str, Verdict | None]:
        self.done += 1
        if not self.problems[self.done - 1].check(text).correct:
            self.wrong.append(self.done)
        if self.done < len(self.problems):
            return self.problems[self.done].prompt[0].content, None
        if not self.wrong:
            return "All of it is right.", Verdict(1.0, True)
        said = f"That is not right. Wrong: {', '.join(map(str, self.wrong))} of {len(self.problems)}."
        return "Not all of it is right.", Verdict(0.0, False, said)

    def solve(self) -> list[str]:
        return [p.reference or "" for p in self.problems]


def pairs() -> TaskSet:
    """Worlds of two turns."""
    source = words().sources[0]
    rows = [source.tasks(part) for part in ("train", "eval")]
    return TaskSet.of([_pair(*pair) for row in rows for pair in itertools.pairwise(row)])


def _pair(first: Task, second: Task) -> Task:
    return Task(
        first.prompt,
        NoText("pair"),
        kind=first.kind,
        difficulty=first.difficulty,
        reference=f"{first.reference}\n{second.reference}",
        environment=Pair(first, second),
        meta={"source": "lab", "environment_key": [p.prompt[0].content for p in (first, second)]},
    )


def model(place: Path, **more) -> str:
    settings = {"layers": 2, "width": 64, "heads": 4, "kv_heads": 2, "seed": 1, **more}
    return str(tiny_directory(place / "model", LETTERS, **settings))


def plan(place: Path, recipe: str = "grpo", steps: int = 4, seed: int = 0, **changes: object) -> Plan:
    """Settings by name: `run.group_size=4` is written `run__group_size=4`."""
    known = {
        "run.precision": "fp32",
        "run.max_tokens": "2",
        "run.tasks_per_step": "16",
        "run.group_size": "8",
        "run.eval_problems": "24",
        "run.eval_samples": "4",
        "run.checkpoint_every": "1000",
        "update.lr": "2e-3",
    }
    known |= {name: str(value) for name, value in few(find(recipe)).items()}
    if recipe == "agent_q":  # a tree of a few replies
        known |= {"group_rollout.proposals": "2"}
    if recipe == "skill0":  # worlds have no hints, which would be its skills otherwise
        (place / "skills").mkdir(parents=True, exist_ok=True)
        (place / "skills" / "general.md").write_text("ab", "utf-8")
        known["group_rollout.skills"] = str(place / "skills")
    known |= {k.replace("__", "."): str(v) for k, v in changes.items()}
    where = place / "model"
    return Plan(
        recipe, str(where) if where.exists() else model(place), "words", Budget(steps, "steps"), seed, known
    )
