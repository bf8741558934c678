"""Self-sampled solutions: a model learns from its own right solutions beside the given one, and from beginnings that are right so far.

A problem has many solutions, and one of them is given. What the model samples and what comes out right joins the given one. What comes out
wrong may still begin well: its longest beginning whose values are those of a known right solution at some point joins as well, and is gone
on from. All that is known of a problem is learnt as alternatives of each other: by the likelihood of any of them. Learning Math Reasoning
from Self-Sampled Correct and Partially-Correct Solutions, arXiv 2205.14318; buffer and losses after the released code
(microsoft/TraceCodegen, `lightning_modules/models/gpt_stmt_*mml_model.py`)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
import torch

from etude import seeds
from etude.batch import Batch
from etude.channels import writes
from etude.credit.imitate import IMITATION
from etude.curriculum.base import SourceMixture
from etude.fixtures.given import GivenContext, given_stage
from etude.fixtures.inference import Spoken, collected, example_question
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.outputs import Outputs
from etude.objective.terms import Mean, Objective, Term, TokenLoss, objective, segment_sum, spread
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.rollout.probe import step_ends, text_ends
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.tasks.working import states
from etude.types import Episode, Group, Request, Signal, Span, Task

KNOWN, BEGAN = "known", "began"
"""Meta of a task: the solutions and beginnings that were found before. Note of an attempt: the tokens that it was made to begin with."""
LONGER = 10  # tokens by which a solution may be longer than the shortest known
MOST = 100  # solutions and beginnings that are kept of a task
TASK = "task"  # extra: the number of the task that a solution belongs to, from 1


@dataclass(frozen=True)
class Solution:
    """Tokens of a right solution, the one that ends a reply among them, or (`whole` False) of a beginning."""

    tokens: tuple[int, ...]
    whole: bool = True


def sound_beginning(tokens: Sequence[int], known: Sequence[Sequence[int]], tokenizer: Any) -> tuple[int, ...]:
    """The longest beginning, in whole lines, after which the state is one that a known solution passes through; () for none."""
    row = np.asarray(tokens, np.int32)
    text = tokenizer.decode(row)
    passed = {s for k in known for s in states(tokenizer.decode(np.asarray(k, np.int32)))}
    ends, lines = text_ends(tokenizer, row), step_ends(text, "\n")
    reached = [i for i, s in enumerate(states(text)) if s in passed and i < len(lines)]
    return tuple(row[: int(np.searchsorted(ends, lines[reached[-1]])) + 1].tolist()) if reached else ()


def grown(
    known: Sequence[Solution], attempts: Sequence[tuple[tuple[int, ...], bool]], tokenizer: Any
) -> list[Solution]:
    """What is known of a task after attempts of (tokens, right): right ones in new words that are at most `LONGER` tokens longer than the
    shortest; of wrong ones the sound beginning, in place of its own beginnings. At most `MOST`, the first ones."""

    def words(tokens: Sequence[int]) -> str:
        return " ".join(tokenizer.decode(np.asarray(tokens, np.int32)).split())

    found = list(known)
    for tokens, right in attempts:
        whole = [s.tokens for s in found if s.whole]
        if right:
            short = len(tokens) <= min(map(len, whole), default=len(tokens)) + LONGER
            if short and words(tokens) not in {words(t) for t in whole}:
                found.append(Solution(tokens))
            continue
        begun = sound_beginning(tokens, whole, tokenizer)
        if begun and not any(s.tokens[: len(begun)] == begun for s in found):
            found = [s for s in found if s.whole or begun[: len(s.tokens)] != s.tokens]
            found.append(Solution(begun, whole=False))
    return found[:MOST]


def attempts_of(group: Group) -> list[tuple[tuple[int, ...], bool]]:
    """(tokens, right) of the attempts that ended, what they were made to begin with included."""
    return [
        ((*e.notes.get(BEGAN, ()), *e.tokens[e.sampled].tolist()), e.correct)
        for e in group.episodes
        if e.sampled.any()
    ]


def given_solution(group: Group) -> list[Solution]:
    return [Solution(tuple(e.spans[-1].tokens.tolist())) for e in group.demonstrations[:1]]


# ---- curriculum: what is known of a task goes with it ------------------------------------------------------------------


class Solutions(SourceMixture):
    """The source's own tasks, with the solutions and beginnings that earlier attempts at them found."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[Solution, ...]] = {}
        self.last: dict[str, float] = {}

    def next(self, n: int, context: Context) -> list[Request]:
        drawn = [context.tasks.draw(Request(), context.drawn + i, context.seed) for i in range(n)]
        return [Request(task=replace(t, meta={**t.meta, KNOWN: self.known.get(t.key, ())})) for t in drawn]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        before, after = 0, list[Solution]()
        for group in groups:
            known = self.known.get(group.task.key) or given_solution(group)
            more = grown(known, attempts_of(group), context.policy.tokenizer)
            self.known[group.task.key] = tuple(more)
            before, after = before + len(known), [*after, *more]
        self.last = {
            "found": float(len(after) - before) / max(1, len(groups)),
            "solutions": sum(s.whole for s in after) / max(1, len(groups)),
            "beginnings": sum(not s.whole for s in after) / max(1, len(groups)),
        }

    def report(self) -> Mapping[str, float]:
        """A task of the last step: what was found new, and how many solutions and beginnings are known."""
        return dict(self.last)

    def state_dict(self) -> dict[str, Any]:
        return {"known": dict(self.known), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.known, self.last = dict(state["known"]), dict(state["last"])


# ---- group rollout: attempts that begin with what was found ------------------------------------------------------------


def given_and_attempts(
    sampled: Annotated[bool, Setting("sample; without, the task's own solution alone is learnt")] = True,
) -> GroupRolloutStage:
    """The task's own solution, and run.group_size attempts, each of which begins anew or goes on from a beginning, equally likely."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        shown = rollouts.demonstrate()
        if not sampled:
            return [shown]
        known = [s.tokens for s in rollouts.task.meta.get(KNOWN, ()) if not s.whole]
        plays = (
            rollouts.play(
                i,
                _from([(), *known][int(seeds.generator(rollouts.key, "begin", i).integers(len(known) + 1))]),
            )
            for i in range(rollouts.samples)
        )
        return [*(e for es in await asyncio.gather(*plays) for e in es), shown]

    return group_rollout


def _from(tokens: tuple[int, ...]) -> Any:
    async def rollout(task: Task, conversation: Conversation) -> Episode:
        conversation.user(task.prompt)
        if tokens:
            conversation.force_prefix(np.array(tokens, np.int32))
        await conversation.check(await conversation.reply())
        return conversation.done(**{BEGAN: list(tokens)})

    return rollout


# ---- credit and objective ------------------------------------------------------------------------------------------------


@writes(IMITATION, extras=(TASK,))
def all_known() -> Credit:
    """All that is known of each task after its attempts, to be learnt as alternatives."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for number, group in enumerate(groups, 1):
            known = group.task.meta.get(KNOWN) or given_solution(group)
            found = grown(known, attempts_of(group), context.policy.tokenizer)
            prompt = next(
                (e.spans[0] for e in (*group.demonstrations, *group.episodes)),
                Span("user", np.zeros(0, np.int32)),
            )
            signals += [_learnt(group.task, prompt, s, number) for s in found]
        return signals

    return credit


def _learnt(task: Task, prompt: Span, solution: Solution, number: int) -> Signal:
    words = np.array(solution.tokens, np.int32)
    row = np.concatenate([np.zeros(len(prompt)), np.ones(len(words))]).astype(np.float32)
    episode = Episode(task, (prompt, Span("assistant", words, tag="solution")))
    return Signal(episode, 0 * row, {IMITATION: row}, {TASK: np.full(len(row), number, np.float32)})


per_task = Mean(
    "task", lambda b, a: torch.ones_like(b.behaviour), lambda b, a: float(len(b.extras[TASK][a].unique()))
)
"""Sum over the tokens of a task's solutions, mean over tasks."""


def any_of_them(
    sharpness: Annotated[
        float,
        Setting("beta: 1 for the likelihood of any solution, towards 0 for all of them alike", low=0, high=1),
    ] = 0.25,
) -> Objective:
    """-(1 / beta) log sum_y p(y)^beta over the solutions y of a task, p(y) the product over tokens; for beta = 0 -mean_y log p(y). A mean
    over tasks."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        active = batch.weight(IMITATION) != 0
        logp = segment_sum(torch.where(active, out.logp, 0.0), batch.episode)
        last = torch.searchsorted(batch.episode, torch.arange(len(logp) + 1, device=logp.device))[1:] - 1
        tasks, task = torch.unique(batch.extras[TASK][last], return_inverse=True)
        number = torch.bincount(task, minlength=len(tasks)).to(logp)
        if sharpness:
            scaled = sharpness * logp
            top = torch.full_like(number, -torch.inf).scatter_reduce(0, task, scaled.detach(), "amax")
            total = torch.zeros_like(number).index_add(0, task, (scaled - top[task]).exp())
            each = -(total.log() + top) / sharpness
        else:
            each = -torch.zeros_like(number).index_add(0, task, logp) / number
        return spread((each / number)[task], batch.episode, active)

    return objective(Term("solutions", loss, per_task, weight=IMITATION), unit="group", extras={TASK})


# ---- numbers ---------------------------------------------------------------------------------------------------------------


def _credited(*said: str) -> list[float]:
    """How many tokens each known solution of "3+4?" has after these attempts."""
    task = replace(example_question(), reference="x=3+4\nx=7")
    *made, shown = collected(RECIPE, said, samples=len(said), task=task)
    group = Group(task, tuple(made), demonstrations=(shown,))
    context: Any = GivenContext()
    signals = given_stage(RECIPE, "credit")([group], context)
    curriculum = given_stage(RECIPE, "curriculum")
    curriculum.observe([group], [], context)
    assert len(curriculum.known[task.key]) == len(signals)
    return [float(s.weights[IMITATION].sum()) for s in signals]


def _went_on() -> float:
    """Whether attempts go on from a known beginning, or begin anew, and nothing else."""
    begun = Solution(tuple(int(t) for t in Spoken().encode("x=3+4\n")), whole=False)
    task = replace(example_question(), reference="x=3+4\nx=7", meta={KNOWN: (begun,)})
    made = collected(RECIPE, ["7"] * 8, samples=8, task=task)
    texts = [e.text for e in made if not e.demonstration]
    return float(set(texts) == {"7", "x=3+4\n7"})


P = (0.5, 0.25)  # probabilities of two solutions of one task, of one token each

RECIPE: Recipe = Recipe(
    name="self_sampled",
    base=SFT,
    paper=Paper(
        "Learning Math Reasoning from Self-Sampled Correct and Partially-Correct Solutions",
        "2205.14318",
        2022,
    ),
    published_lr=1e-4,
    idea="Beside a problem's given solution the model learns its own right ones, and beginnings of wrong ones that were right so far. "
    "All that is known of a problem counts as one: any of them may be said. "
    "So it keeps several ways to an answer.",
    equation="L = - (1 / beta) log sum_{y in B(x)} p(y | x)^beta;  B: the given solution, right samples in new words, and the longest beginnings of "
    "wrong ones whose state is one of a known solution's",
    stages={
        "curriculum": stage(Solutions),
        "group_rollout": stage(given_and_attempts),
        "reward": stage(optional_verdict),
        "credit": stage(all_known),
        "objective": stage(any_of_them),
    },
    needs=("reference", "text"),
    departures=(
        "solutions are lines of arithmetic (name = expression, or an equation whose right side is what it states); the paper has Python programs that it "
        "executes line by line",
        "run.group_size samples a task and step, where the release draws one",
        "a beginning is gone on from as likely as the answer is begun anew",
        "a solution may be 10 tokens longer than the shortest known; 100 are kept of a task, as in the release's defaults",
    ),
    claim="One of many samples is right more often than after learning the given solutions alone.",
    manipulation=(
        Manipulated(
            "a solution or a beginning is found for one task in ten", r"curriculum\.found", 0.1, read="max"
        ),
    ),
    examples=(
        ByHand(
            "the given one, with its end; 7, with it; of what is wrong a line and its end",
            lambda: _credited("7", "y=7\n9"),
            [10, 2, 4],
        ),
        ByHand("from a beginning, or anew", _went_on, 1),
        ByHand(
            "no verdict is needed",
            lambda: given_stage(RECIPE, "reward")(Episode(example_question(), ()))["reward"],
            0,
        ),
        OffPolicy(
            "two solutions of one task, beta = 1: -log(1/2 + 1/4); and a lone one, 1/2",
            ratio=tuple(math.e * p for p in (*P, 0.5)),
            advantage=(0.0,) * 3,
            lengths=(1, 1, 1),
            weights={IMITATION: (1, 1, 1)},
            extras={TASK: (1, 1, 2)},
            loss=(-math.log(0.75) + math.log(2)) / 2,
            gradient=(-2 / 3 / 2, -1 / 3 / 2, -1 / 2),
            settings={"objective.sharpness": 1.0},
        ),
        OffPolicy(
            "beta = 1/2: -2 log(sqrt(1/2) + 1/2); all alike at beta = 0",
            ratio=tuple(math.e * p for p in P),
            advantage=(0.0,) * 2,
            lengths=(1, 1),
            weights={IMITATION: (1, 1)},
            extras={TASK: (1, 1)},
            loss=-2 * math.log(0.5**0.5 + 0.5),
            gradient=(-(0.5**0.5) / (0.5**0.5 + 0.5), -0.5 / (0.5**0.5 + 0.5)),
            settings={"objective.sharpness": 0.5},
        ),
        OffPolicy(
            "beta = 0: the mean of log 2 and log 4",
            ratio=tuple(math.e * p for p in P),
            advantage=(0.0,) * 2,
            lengths=(1, 1),
            weights={IMITATION: (1, 1)},
            extras={TASK: (1, 1)},
            loss=1.5 * math.log(2),
            gradient=(-0.5, -0.5),
            settings={"objective.sharpness": 0.0},
        ),
        Reduction(
            "nothing sampled: the given solutions, as sums over their tokens (SFT, with a mean over answers' sums)",
            "sft",
            {"group_rollout.sampled": False},
            {"objective.mean": "sum"},
        ),
    ),
)
