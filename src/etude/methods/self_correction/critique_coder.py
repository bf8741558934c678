"""Critique-Coder: a part of the batch asks whether an answer is right, beside the part that asks for answers.

A judging task shows a question and an answer to it that was given before, and asks for a verdict; who says what the checker
said is right. Both sorts of task share one policy and one loss, GRPO. Critique-Coder: Enhancing Coder Models by Critique
Reinforcement Learning, arXiv 2509.22824."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude.curriculum.base import SourceMixture
from etude.fixtures.curricula import ExampleContext, attempts_at, built
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.second import ANSWERED, worded
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks.check import Exact
from etude.types import Group, Request, Signal, Task

RIGHT, WRONG = "right", "wrong"
JUDGE = ANSWERED + "Is it right? Check it, then say <answer>right</answer> or <answer>wrong</answer>."


@dataclass(frozen=True)
class Candidate:
    """An answer that was given to a task, and whether its checker found it right."""

    task: Task
    answer: str
    right: bool

    def as_task(self, wording: str) -> Task:
        """The task of judging it. `meta["parent"]` is the key of the task, so that what is held out stays held out."""
        question = self.task.prompt[-1].content
        gold = RIGHT if self.right else WRONG
        return replace(
            self.task,
            prompt=reworded(self.task.prompt, wording.format(question=question, answer=self.answer)),
            check=Exact(gold, extract="tag"),
            kind=f"judge {self.task.kind}",
            answer=gold,
            reference=f"<answer>{gold}</answer>",
            hints=(),
            environment=None,
            meta={"parent": self.task.key, "feedback": self.task.meta.get("feedback", "unary")},
        )


class Judging(SourceMixture):
    """Of the tasks, `judge_share` ask for a verdict on an answer of an earlier step, as often on a right as on a wrong one where
    there are both; the rest are the source's own. Each answer is judged once."""

    def __init__(
        self,
        judge_share: Annotated[
            float, Setting("share of the tasks that judge an answer", low=0, high=1)
        ] = 0.2,
        right_from: Annotated[
            float, Setting("reward above which an answer counts as right", low=0, high=1)
        ] = 0.8,
        max_candidates: Annotated[
            int, Setting("answers that are kept to be judged; the oldest leave", low=1)
        ] = 512,
        judge_request: Annotated[str, Setting("how a verdict is asked for")] = JUDGE,
    ) -> None:
        self.share, self.right_from, self.most = judge_share, right_from, max_candidates
        self.wording = worded(judge_request, "question", "answer")
        self.kept: list[Candidate] = []
        self.last: dict[str, float] = {}

    def next(self, n: int, context: Context) -> list[Request]:
        return [self._request(context.rng("judge", context.drawn + i)) for i in range(n)]

    def _request(self, rng: np.random.Generator) -> Request:
        if rng.random() >= self.share or not self.kept:
            return Request()
        wanted = bool(rng.random() < 0.5)
        fit = [i for i, c in enumerate(self.kept) if c.right == wanted] or list(range(len(self.kept)))
        chosen = self.kept.pop(fit[int(rng.integers(len(fit)))])
        return Request(task=chosen.as_task(self.wording), why="to judge an earlier answer")

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Keeps one right and one wrong answer of every group, where it has them; notes how the judging went."""
        judged = [e.correct for g in groups if "parent" in g.task.meta for e in g.episodes]
        self.last = {"judged right": float(np.mean(judged))} if judged else {}
        for number, group in enumerate(groups):
            if "parent" in group.task.meta or group.task.environment is not None:
                continue
            rng = context.rng("candidates", number)
            for right in (True, False):
                fit = [
                    e for e in group.episodes if e.verdict and (e.verdict.reward > self.right_from) == right
                ]
                if fit:
                    self.kept.append(Candidate(group.task, fit[int(rng.integers(len(fit)))].text, right))
        self.kept = self.kept[-self.most :]

    def report(self) -> Mapping[str, float]:
        """Answers that wait to be judged, and the share of right verdicts of the last step."""
        return {"candidates": float(len(self.kept)), **self.last}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self.kept), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.last = list(state["kept"]), dict(state["last"])


def _shares(share: float) -> list[float]:
    """Of a thousand tasks drawn with enough candidates: the share that judges, and of these the share of right answers, rounded to
    a tenth."""
    curriculum = built(RECIPE, "curriculum", {"judge_share": share})
    group = attempts_at(("a", 0), [1.0])
    curriculum.kept = [Candidate(group.task, "x", i < 1500) for i in range(3000)]
    asked = [r.task for r in curriculum.next(1000, ExampleContext()) if r.task]
    return (
        [round(len(asked) / 1000, 1), round(float(np.mean([t.answer == RIGHT for t in asked])), 1)]
        if asked
        else [0]
    )


def _kept(*rewards: float) -> list[float]:
    """Which answers of a group with these rewards are kept: 1 a right one, 0 a wrong one."""
    curriculum = built(RECIPE, "curriculum")
    curriculum.observe([attempts_at(("a", 0), list(rewards))], [], ExampleContext())
    return [float(c.right) for c in curriculum.kept]


def _verdicts(right: bool) -> list[float]:
    task = Candidate(attempts_at(("a", 0), [1.0]).task, "x", right)
    asked = replace(task, task=replace(task.task, prompt="q")).as_task(JUDGE)  # type: ignore[arg-type]
    return [asked.check(t).reward for t in ("<answer>right</answer>", "so <answer>wrong</answer>", "right")]


RECIPE = Recipe(
    name="critique_coder",
    paper=Paper(
        "Critique-Coder: Enhancing Coder Models by Critique Reinforcement Learning", "2509.22824", 2025
    ),
    published_lr=1e-6,
    idea="A fifth of the tasks shows an answer that was given before and asks whether it is right. The reward is 1 where the verdict "
    "agrees with the checker's. Answering and judging are learnt in the same batch, by the same loss.",
    equation="P(task judges) = 0.2;  r = 1[verdict = c], c = 1[reward of the answer > 0.8];  A and L as in GRPO",
    departures=(
        "the answers that are judged are the policy's own of earlier steps, right and wrong equally often; the paper's come from a larger model",
        "the verdict stands in <answer>, the paper's in a box of its own",
        "alone it is trained as GRPO; `dapo+critique_coder` has the paper's unequal clip, its filter and its mask of answers cut short",
        "nothing of the paper's two lengths of training is here",
    ),
    stages={"curriculum": stage(Judging)},
    default_base=GRPO,
    needs=("text",),
    claim="With a fifth of the batch judging, more is solved, or judging is better at equally much solved; a batch of nothing else "
    "solves less.",
    manipulation=(Manipulated("there are answers to be judged", r"curriculum\.candidates", 1, read="max"),),
    examples=(
        ByHand("a fifth judges, half of it right answers", lambda: _shares(0.2), [0.2, 0.5]),
        ByHand("none, all", lambda: [*_shares(0.0), *_shares(1.0)], [0, 1, 0.5]),
        ByHand(
            "of 1, 0.5, 0: one right and one wrong; of 0.8: wrong",
            lambda: [*_kept(1.0, 0.5, 0.0), *_kept(0.8)],
            [1, 0, 0],
        ),
        ByHand("of a right answer: right, wrong, no verdict", lambda: _verdicts(True), [1, 0, 0]),
        ByHand("of a wrong answer", lambda: _verdicts(False), [0, 1, 0]),
        Reduction("no judging, or nothing to judge yet: GRPO", "grpo", {"curriculum.judge_share": 0.0}),
    ),
)
