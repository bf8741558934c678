"""Absolute Zero: one model proposes tasks and solves them, and no task comes from people.

A program, an input and an output; one of the three is hidden. The proposer writes a program and an input (or further inputs for
a program that is there), which are run: what runs, twice alike, is a task with a known answer. It is paid for tasks that the
solver can solve, but seldom. Zhao et al., arXiv 2505.03335; rewards and batches after the released code
(LeapLabTHU/Absolute-Zero-Reasoner)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.credit.group import Credit, constant, whitened
from etude.curriculum.written import MostKept, Near, News, Written, WrittenTasks
from etude.fixtures.curricula import ExampleContext, attempts_at, built
from etude.fixtures.examples import example_episode
from etude.objective.entropy import entropy_bonus
from etude.objective.hybrid import EntropyWeight
from etude.objective.policy import High, Low, MeanOver, clipped
from etude.objective.terms import Objective
from etude.recipe import ByHand, Credited, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.reward.learnability import learnability
from etude.rollout.attempts import answer_of
from etude.rollout.basic import single
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage, Reward
from etude.tasks import TaskSet
from etude.tasks.triples import MODES, PROPOSE, TRIPLE, Posed, Triple, proposal, task_of
from etude.types import Episode, Group, Request, Signal, Task

PROPOSED = "proposed"
"""Note of a proposal that runs: its task's key, the share of solver attempts that were right, and the triple."""

PROBES = 1 << 16  # index of the first solver attempt at a proposal: beyond every sample's


# ---- curriculum: six batches, and what was proposed ----------------------------------------------------------------


class Proposals:
    """Of the tasks asked for, a sixth each proposes and solves deductions, abductions and inductions. Proposers see `examples`
    earlier triples and are asked for another; inductions are asked of a program that is there. Solvers meet what is new first,
    then any that was proposed. Tasks that are no triples (`tasks.triples`) are drawn from their source and solved."""

    def __init__(
        self,
        examples: Annotated[int, Setting("K, earlier triples that a proposer is shown", low=1, high=64)] = 6,
        inputs: Annotated[int, Setting("inputs of an induction", low=2, high=64)] = 10,
        propose: Annotated[
            bool, Setting("have tasks proposed; without, those of the source are solved")
        ] = True,
        near: Near = 1.0,
        most_kept: MostKept = 16384,
    ) -> None:
        self.examples, self.inputs, self.propose = examples, inputs, propose
        self.written = WrittenTasks(near, most_kept)
        self.new: list[str] = []  # keys of proposed tasks that were not solved yet
        self.language: Any = None
        self.last: dict[str, float] = {}

    def prepare(self, tasks: TaskSet) -> None:
        """Finds the language that the tasks' programs are written in."""
        found = (getattr(source, "language", None) for source in getattr(tasks, "sources", ()))
        self.language = next((language for language in found if language is not None), None)

    def next(self, n: int, context: Context) -> list[Request]:
        if self.language is None or not self.propose:
            return [Request() for _ in range(n)]
        if not self.written:
            self._plant(context)
        return [self._request(context, context.drawn + i) for i in range(n)]

    def _plant(self, context: Context) -> None:
        """The first triple of every mode: the program that gives its input back."""
        program = self.language.identity
        for mode in MODES:
            given = [str(i) for i in range(self.inputs if mode == "induction" else 1)]
            pairs = tuple((i, self.language.run(program, i) or "") for i in given)
            task = task_of(self.language, Triple(mode, program, pairs))
            self.written.add(Written(task, step=context.step, writer="given to begin with"), context)

    def news(self) -> list[News]:
        return self.written.news()

    def _request(self, context: Context, number: int) -> Request:
        mode, rng = MODES[number // 2 % 3], context.rng("triples", number)
        if number % 2 == 0:
            return Request(task=self._proposal(mode, rng), purpose=PROPOSE, why=f"to propose: {mode}")
        fresh = [k for k in self.new if k in self.written.kept and self.written.kept[k].task.kind == mode]
        if fresh:
            self.new.remove(fresh[0])
            return Request(task=self.written.kept[fresh[0]].task, why="new")
        known = self.written.sample(1, rng, mode)
        return Request(task=known[0].task, why="proposed before") if known else Request()

    def _proposal(self, mode: str, rng: np.random.Generator) -> Task:
        kind = "deduction" if mode == "induction" else mode
        known = [w.task.meta[TRIPLE] for w in self.written.sample(self.examples, rng, kind)]
        program = known[0].program if mode == "induction" and known else self.language.identity
        return proposal(self.language, mode, known, program, self.inputs)

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        self.written.judge(groups)
        asked = [e for g in groups if g.request.purpose == PROPOSE for e in g.episodes]
        taken = []
        for episode in asked:
            note = episode.notes.get(PROPOSED)
            if not note:
                continue
            task = task_of(self.language, note[TRIPLE])
            if self.written.add(Written.by(episode, task, context.step, note["rate"]), context):
                taken.append(note)
        self.new += [task_of(self.language, n[TRIPLE]).key for n in taken]
        rates = [n["rate"] for n in taken]
        self.last = {}
        if asked:
            self.last = {"runs": float(np.mean([PROPOSED in e.notes for e in asked]))}
        if taken:
            sizes = [self.language.size(n[TRIPLE].program) for n in taken]
            self.last |= {
                "new": float(len(taken)),
                "new/rate": float(np.mean(rates)),
                "new/learnable": float(np.mean([0 < r < 1 for r in rates])),
                "new/size": float(np.mean(sizes)),
            }

    def report(self) -> Mapping[str, float]:
        """Of the last step's proposals: the share that runs, how many are new, how often those were solved, how many of them are
        solved sometimes but not always, and the operations in them; and of all that were proposed."""
        return {"runs": 0.0, **self.last, **self.written.report()}

    def state_dict(self) -> dict[str, Any]:
        return {"written": self.written.state_dict(), "new": list(self.new), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.written.load_state_dict(state["written"])
        self.new, self.last = list(state["new"]), dict(state["last"])


# ---- group rollout: how often is a proposal solved? ------------------------------------------------------------------


def tried_out(
    probes: Annotated[int, Setting("n, solver attempts at each proposal that runs", low=1, high=256)] = 8,
) -> GroupRolloutStage:
    """Attempts; each proposal that runs is attempted `probes` times as well, which is paid for and not trained on."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        check = rollouts.task.check
        if not isinstance(check, Posed):
            return episodes
        return list(await asyncio.gather(*(_tried(rollouts, check, e, probes) for e in episodes)))

    return group_rollout


async def _tried(rollouts: GroupRollout, check: Posed, episode: Episode, probes: int) -> Episode:
    triple = None if episode.failure or not episode.correct else check.read(episode.text, triple=True)
    if triple is None:
        return episode
    task = task_of(check.language, triple)
    if not rollouts.admits(task):
        return episode
    first = PROBES + episode.index * probes
    found = await asyncio.gather(*(rollouts.play(first + i, single(), task) for i in range(probes)))
    judged = [e.correct for es in found for e in es if e.failure is None]
    rate = float(np.mean(judged)) if judged else 0.0
    note = {"key": task.key, "rate": rate, TRIPLE: triple}
    return await rollouts.score(replace(episode, notes={**episode.notes, PROPOSED: note}))


# ---- reward ------------------------------------------------------------------------------------------------------


def roles() -> Reward:
    """The role's own reward r where it is positive: `learnability` of a proposal that runs, 1 of a right answer. Otherwise -1/2
    where there is an answer, -1 where there is none in the form that was asked for."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        note = episode.notes.get(PROPOSED)
        if isinstance(episode.task.check, Posed):
            own = learnability(note["rate"]) if note else 0.0
        else:
            own = episode.verdict.reward
        formed = answer_of(episode.task, episode.text) is not None
        return {"reward": own if own > 0 else -0.5 if formed else -1.0}

    return reward


# ---- credit: task-relative REINFORCE++ ---------------------------------------------------------------------------------


def role_relative(
    separate: Annotated[bool, Setting("a baseline for every role and mode; without, one for all")] = True,
) -> Credit:
    """A = (R - mean R) / (std R + 1e-8) over all response tokens of the same role and mode (TRR++)."""

    def credit(groups: Sequence[Group], context: Context | None = None) -> list[Signal]:
        signals = [constant(e, e.reward) for g in groups for e in g.episodes]
        kinds = [s.episode.task.kind if separate else "" for s in signals]
        done = dict[int, Signal]()
        for kind in dict.fromkeys(kinds):
            mine = [i for i, k in enumerate(kinds) if k == kind]
            done |= dict(zip(mine, whitened([signals[i] for i in mine]), strict=True))
        return [done[i] for i in range(len(signals))]

    return credit


def clipped_with_entropy(
    clip_low: Low = 0.2, clip_high: High = 0.2, mean: MeanOver = "token", entropy_weight: EntropyWeight = 0.0
) -> Objective:
    """PPO's clip, a mean over all tokens, less entropy_weight x the entropy."""
    return clipped(clip_low, clip_high, mean) + entropy_bonus(entropy_weight)


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def _paid(text: str, right: float = 0.0, rate: float | None = None, posed: bool = False) -> float:
    """The reward of a reply to a triple, or of a proposal that runs and is solved at this rate."""
    from etude.tasks.languages import Arithmetic

    task = task_of(Arithmetic(), Triple("deduction", "X", (("1", "1"),)))
    if posed:
        task = proposal(Arithmetic(), "deduction", [])
    notes = {} if rate is None else {PROPOSED: {"rate": rate}}
    episode = replace(example_episode(right), task=task, text=text, notes=notes)
    return float(built(RECIPE, "reward")(episode)["reward"])


def _two_kinds() -> list[float]:
    groups = [attempts_at(("easy", 0), [1.0, 0.0]), attempts_at(("hard", 0), [0.0, 0.0, 0.0, 1.0])]
    return [float(s.advantage[0]) for s in built(RECIPE, "credit")(groups)]


def _asked(n: int) -> list[str]:
    """The kinds of the first tasks."""
    from etude.tasks.triples import TripleSource

    curriculum = built(RECIPE, "curriculum")
    curriculum.prepare(type("Tasks", (), {"sources": [TripleSource("triples")]}))
    return [r.task.kind for r in curriculum.next(n, ExampleContext())]


def _grown() -> list[float]:
    """How many tasks there are after a proposal, after the same once more, and after another."""
    from etude.tasks.languages import Arithmetic
    from etude.tasks.triples import TripleSource

    curriculum = built(RECIPE, "curriculum")
    curriculum.prepare(type("Tasks", (), {"sources": [TripleSource("triples")]}))
    curriculum.next(1, ExampleContext())
    found = [float(len(curriculum.written))]
    for program in ("X+2", "X+2", "X+3"):
        triple = Triple("deduction", program, (("1", Arithmetic().run(program, "1") or ""),))
        note = {PROPOSED: {"key": "", "rate": 0.5, TRIPLE: triple}}
        task = proposal(Arithmetic(), "deduction", [])
        episode = replace(example_episode(1.0), task=task, notes=note)
        curriculum.observe([Group(task, (episode,), Request(purpose=PROPOSE))], [], ExampleContext())
        found.append(float(len(curriculum.written)))
    return found


RECIPE = Recipe(
    name="absolute_zero",
    paper=Paper("Absolute Zero: Reinforced Self-play Reasoning with Zero Data", "2505.03335", 2025),
    published_lr=1e-6,
    idea="One model writes programs with inputs, and solves what is left when the output, the input or the program is hidden. Running "
    "them checks both. The one who proposes earns most for tasks that are solved seldom but not never, so that they stay at the "
    "edge of what can be solved.",
    equation="r_propose = 1 - s (0 for s = 0);  R = r if r > 0, -1/2 if only well-formed, -1 else;  A = (R - mean R) / std R per role "
    "and mode;  L = - mean_t min(rho A, clip(rho, 1-e, 1+e) A)",
    departures=(
        "what a step proposes is solved from the next step on; the release solves it within the step",
        "a request is sampled run.group_size times, where the release samples each once from a larger batch",
        "proposals of inductions carry no message beside their inputs, and half of the pairs are shown",
        "the safety and determinism of Python programs is the sandbox's matter: no list of forbidden words, two runs that agree",
        "GUESS: the bonus for entropy (0.001 in the paper) is off",
        "proposals that would be held-out tasks earn nothing and are dropped",
        "tasks that are no triples are drawn from their source and solved",
    ),
    stages={
        "curriculum": stage(Proposals),
        "group_rollout": stage(tried_out),
        "reward": stage(roles),
        "credit": stage(role_relative),
        "objective": stage(clipped_with_entropy),
    },
    needs=("text",),
    claim="Proposed tasks become harder as the solver becomes better, and training the proposer helps.",
    manipulation=(Manipulated("a tenth of the proposals run", r"curriculum\.runs", 0.1),),
    examples=(
        ByHand(
            "1 of 8 solved: 7/8; all: 0; none: 0",
            lambda: [learnability(s) for s in (1 / 8, 1, 0)],
            [0.875, 0, 0],
        ),
        ByHand(
            "a right answer, a wrong one, none in the form asked for",
            lambda: [_paid("<answer>1</answer>", 1.0), _paid("<answer>2</answer>"), _paid("1")],
            [1, -0.5, -1],
        ),
        ByHand(
            "proposals: solved half the time, always, one that does not run, none",
            lambda: [
                _paid("<answer>X|1</answer>", 1.0, 0.5, posed=True),
                _paid("<answer>X|1</answer>", 1.0, 1.0, posed=True),
                _paid("<answer>X/0|1</answer>", posed=True),
                _paid("X", posed=True),
            ],
            [0.5, -0.5, -0.5, -1],
        ),
        ByHand(
            "each kind by itself: 1 of 2 right; 1 of 4 right: mean 1/4, std sqrt(3)/4",
            _two_kinds,
            [1, -1, *[-1 / 3**0.5] * 3, 3**0.5],
        ),
        ByHand(
            "eight requests: propose and solve each mode, and the first again",
            lambda: [[kind in (PROPOSE + m, m) for m in MODES].index(True) for kind in _asked(8)],
            [0, 0, 1, 1, 2, 2, 0, 0],
        ),
        ByHand("three to begin with; what is proposed again is not taken again", _grown, [3, 4, 4, 5]),
        Credited(
            "one kind: the batch's mean over its std",
            [[1.0, 0.0], [1.0, 1.0]],
            [[3**-0.5, -(3**0.5)], [3**-0.5, 3**-0.5]],
        ),
        OffPolicy(
            "the clip; every token counts alike, whatever its answer's length",
            ratio=(1.5, 1.1, 0.5, 1.5, 0.9, 0.5),
            advantage=(1.0, 1.0, 1.0, -1.0, -1.0, -1.0),
            lengths=(1, 5),
            loss=(-1.2 - 1.1 - 0.5 + 1.5 + 0.9 + 0.8) / 6,
            gradient=(0, -1.1 / 6, -0.5 / 6, 1.5 / 6, 0.9 / 6, 0),
        ),
        Reduction(
            "one baseline for all, tasks that are no triples: REINFORCE++",
            "reinforce_pp",
            {"credit.separate": False},
        ),
    ),
)
