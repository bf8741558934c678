"""Med-R3: first reasoning is learnt, without looking things up; then looking up, by itself; then both together.

Lu et al. (arXiv 2507.23541); rewards after the released code (8023looker/Med-R3, my_reward/contrib). Three stages, a third of the run each, go on with the same policy:

    1  no tools            R = worth + 0.8 logic
    2  tools               R = coverage, 0 where nothing was looked up
    3  tools               R = worth + 0.8 logic + w coverage

logic compares the triples (entity, relation, entity) that an answer's reasoning states with those of the task: the mean of the Jaccard index of the paths in both
graphs, however long, and that of their entities. coverage: the share of the task's evidence that was found. A call that cannot be read: -0.1. GRPO with a dual clip,
a mean over tokens; what was found is not trained.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude.fixtures.called import example_calls
from etude.fixtures.given import given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import clipped
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout, verdict
from etude.rollout.writers import WRITERS, Address, Writer
from etude.settings import Setting, stage
from etude.stages import Context, Reward
from etude.tools.kit import CALLS, Kit
from etude.types import Episode, Group, Message, Signal, Task

Triple = tuple[str, str, str]

STAGE = "stage"
"""Note: 0, 1 or 2."""

GRAPH = "graph"
"""Column of a task: [[entity, relation, entity], ...], the steps of a sound reasoning. Note: those that the attempt stated."""

EVIDENCE = "evidence"
"""Column of a task: texts that should be found. Without it, its answer."""

EXTRACT = (
    "Question: {question}\n\nReasoning:\n{reasoning}\n\nNames that may be used:\n{names}\n\nWrite down the relations between things that this reasoning states, one a "
    "line, as: thing | relation | thing. Nothing else."
)

# ---- graphs ----------------------------------------------------------------------------------------------------------


def triples_of(given: Any) -> list[Triple]:
    """The triples of a column; none where it holds something else."""
    rows = given if isinstance(given, list | tuple) else ()
    return [
        (_name(r[0]), _name(r[1]), _name(r[2])) for r in rows if isinstance(r, list | tuple) and len(r) == 3
    ]


def _name(text: Any) -> str:
    return " ".join(str(text).split()).casefold()


def stated(reasoning: str, reference: Sequence[Triple]) -> list[Triple]:
    """By rule: the reference's triples of which a sentence names both entities."""
    sentences = [_name(s) for s in re.split(r"(?<=[.!?;])\s+|\n", reasoning)]
    return [t for t in reference if any(t[0] in s and t[2] in s for s in sentences)]


def read_triples(text: str) -> list[Triple]:
    """The lines `a | b | c` of a text."""
    return triples_of([[p.strip() for p in line.split("|")] for line in text.splitlines()])


def paths_of(graph: Sequence[Triple]) -> set[tuple[str, ...]]:
    """All paths (e, r, e, r, e, ...) from entities that no relation leads to, each step of one at most once."""
    ends = {t[2] for t in graph}
    found: set[tuple[str, ...]] = set()
    going = [(t, (i,)) for i, t in enumerate(graph) if t[0] not in ends]
    paths: list[tuple[tuple[str, ...], tuple[int, ...]]] = [(tuple(t), used) for t, used in going]
    while paths and len(found) < 4096:
        path, used = paths.pop()
        found.add(path)
        paths += [
            ((*path, t[1], t[2]), (*used, i))
            for i, t in enumerate(graph)
            if t[0] == path[-1] and i not in used
        ]
    return found


def jaccard(a: set[Any], b: set[Any]) -> float:
    return len(a & b) / len(a | b) if a | b else 0.0


def logic_of(mine: Sequence[Triple], reference: Sequence[Triple]) -> float:
    """The mean of the indices of paths and of entities."""
    entities = [{e for t in graph for e in (t[0], t[2])} for graph in (mine, reference)]
    return (jaccard(paths_of(mine), paths_of(reference)) + jaccard(*entities)) / 2


def coverage_of(episode: Episode) -> float:
    """The share of the task's evidence that stands in what was found."""
    task = episode.task
    given = task.meta.get(EVIDENCE) or ([task.answer] if task.answer else [])
    wanted = [_name(text) for text in ([given] if isinstance(given, str) else given)]
    found = _name(" ".join(call["result"] for call in episode.notes.get(CALLS, ()) if not call["failed"]))
    return sum(text in found for text in wanted) / len(wanted) if wanted else 0.0


# ---- group rollout ---------------------------------------------------------------------------------------------------


class Staged:
    """Attempts, without tools in the first stage. Notes `STAGE`, and `GRAPH` where the task has one."""

    def __init__(
        self,
        reason_until: Annotated[
            float, Setting("share of the run at which the first stage ends", low=0, high=1)
        ] = 1 / 3,
        search_until: Annotated[
            float, Setting("share of the run at which the second ends", low=0, high=1)
        ] = 2 / 3,
        extractor: Annotated[
            str,
            Setting(
                "who reads the triples out of a reasoning: a rule, or a model", choices=("rule", *WRITERS)
            ),
        ] = "rule",
        address: Address = "",
    ) -> None:
        self.bounds = (reason_until, search_until)
        self.writer = None if extractor == "rule" else Writer(extractor, address)
        self.reads = self.writer.reads if self.writer else frozenset()
        self.last: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        number = sum(rollouts.progress >= bound for bound in self.bounds)
        if number == 0:
            rollouts = replace(rollouts, generator=replace(rollouts.generator, kit=Kit()))

        async def rollout(task: Task, conversation: Conversation) -> list[Episode]:
            played = await rollouts.rollout(task, conversation)
            notes: dict[str, Any] = {STAGE: number}
            if reference := triples_of(task.meta.get(GRAPH)):
                notes[GRAPH] = await self.graph(task, conversation, reference)
            made = [played] if isinstance(played, Episode) else list(played)
            return [replace(e, notes={**e.notes, **notes}) for e in made]

        return await rollouts.plays(range(rollouts.samples), rollout)

    async def graph(
        self, task: Task, conversation: Conversation, reference: Sequence[Triple]
    ) -> list[Triple]:
        """The triples that an attempt states."""
        reasoning = "\n".join(m.content for m in conversation.messages if m.role == "assistant")
        if self.writer is None:
            return stated(reasoning, reference)
        names = ", ".join(dict.fromkeys(word for triple in reference for word in triple))
        asked = EXTRACT.format(question=task.prompt[-1].content, reasoning=reasoning, names=names)
        return read_triples(await self.writer.draft(conversation, (Message("user", asked),)))

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        stages = [e.notes[STAGE] for g in groups for e in g.episodes if STAGE in e.notes]
        self.last = {"stage": float(np.mean(stages))} if stages else {}

    def report(self) -> Mapping[str, float]:
        """The stage of the last step: 0, 1 or 2."""
        return self.last


# ---- reward ----------------------------------------------------------------------------------------------------------


def by_stage(
    logic_weight: Annotated[
        float, Setting("weight of the reasoning, in the first stage and the last", low=0)
    ] = 0.8,
    coverage_weight: Annotated[float, Setting("w, weight of what was found, in the last stage", low=0)] = 1.0,
    unreadable_reward: Annotated[
        float, Setting("reward where a call could not be read", low=-10, high=0)
    ] = -0.1,
) -> Reward:
    """R of the attempt's stage. logic and coverage in any stage."""

    def reward(episode: Episode) -> dict[str, float]:
        worth, record = verdict()(episode)["reward"], episode.notes.get(CALLS, ())
        logic = logic_of(episode.notes.get(GRAPH, ()), triples_of(episode.task.meta.get(GRAPH)))
        coverage, number = coverage_of(episode), episode.notes.get(STAGE, 0)
        total = (
            worth + logic_weight * logic,
            coverage,
            worth + logic_weight * logic + coverage_weight * coverage,
        )[number]
        if not all(call["read"] for call in record):
            total = unreadable_reward
        return {"reward": total, "logic": logic, "coverage": coverage}

    return reward


# ---- the recipe ------------------------------------------------------------------------------------------------------

STEPS = [["fever", "shows", "flu"], ["flu", "needs", "rest"]]
SAID = "A fever is there, so it may be flu. Sleep helps."


def _rewarded(
    number: int, worth: float = 1.0, found: Sequence[str] = (), graph: Any = (), **how: Any
) -> list[float]:
    """Reward, logic and coverage of an attempt in stage `number` that found these texts and stated these triples."""
    made = example_calls(worth, *(("search", {"query": "q"}) for _ in found), **how)
    record = [{**call, "result": text} for call, text in zip(made.notes[CALLS], found, strict=False)]
    record += made.notes[CALLS][len(record) :]
    task = replace(made.task, meta={GRAPH: STEPS, EVIDENCE: ["Rest helps", "drink"]})
    notes = {**made.notes, CALLS: record, STAGE: number, GRAPH: triples_of(list(graph))}
    scored = given_stage(RECIPE, "reward")(replace(made, task=task, notes=notes))
    return [scored[name] for name in ("reward", "logic", "coverage")]


def _stages(*progress: float) -> list[int]:
    return [collected(RECIPE, ["7"], progress=p)[0].notes[STAGE] for p in progress]


def _noted(**settings: Any) -> list[list[str]]:
    """The triples of an attempt that says `SAID`."""
    task = replace(example_question(), meta={GRAPH: STEPS})
    others = {"teacher": ["Flu | needs | rest\nnothing else"]}
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    return [list(t) for t in collected(RECIPE, [SAID], others, named, 1, task)[0].notes[GRAPH]]


RECIPE: Recipe = Recipe(
    name="med_r3",
    base=GRPO,
    paper=Paper(
        "Med-R3: Enhancing Medical Retrieval-Augmented Reasoning of LLMs via Progressive Reinforcement Learning",
        "2507.23541",
        2025,
    ),
    published_lr=1e-6,
    idea="To look up and to reason are hard to learn at once, since each is of use only with the other. First the policy reasons with what it knows, "
    "and is paid for sound steps as well as for the answer. Then it is paid for finding the evidence, and at last for both.",
    equation="R = worth + 0.8 logic | coverage | worth + 0.8 logic + w coverage;  logic = mean(J(paths), J(entities));  L as GRPO, dual clip 3, a mean over tokens",
    departures=(
        "GUESS: the stages are thirds of one run, and w = 1; the release has a reward for reasoning with an answer and one for the share of evidence that was found, and does "
        "not say how its runs put them together",
        "the triples of an answer are read by a rule, a sentence that names both entities, or by a model (group_rollout.extractor); the release asks a large model",
        "logic is the mean of two of the release's three parts: likeness of embeddings, by a model of its own, is left out",
        "the release's costs for short thoughts, for a mixture of languages and for long replies are left out, and so is its 0.4 for an answer that is nearly right: worth is "
        "the task's verdict",
        "where a task names no evidence, finding its answer counts; where it names no triples, only the answer",
        "the clip is 0.2 both ways, as in the released script; its text speaks of a higher one",
    ),
    stages={
        "group_rollout": stage(Staged),
        "reward": stage(by_stage),
        "objective": stage(clipped, mean="token", dual_clip=3.0),
    },
    claim="The three stages in this order end above training with everything from the first step on, at as many updates.",
    manipulation=(Manipulated("all three stages were there", r"group_rollout\.stage", 2.0, read="range"),),
    examples=(
        ByHand("stages of the run", lambda: _stages(0.0, 0.3, 0.4, 0.7), [0, 0, 1, 2]),
        ByHand(
            "paths of two steps: 2; of a circle, which begins nowhere, none; of a fork behind a step: 3",
            lambda: [
                len(paths_of(triples_of(g)))
                for g in (
                    STEPS,
                    [["a", "r", "b"], ["b", "r", "a"]],
                    [["a", "r", "b"], ["b", "r", "c"], ["b", "r", "d"]],
                )
            ],
            [2, 0, 3],
        ),
        ByHand(
            "one of two steps stated: of 2 paths 1, of 3 entities 2",
            lambda: logic_of(triples_of(STEPS[:1]), triples_of(STEPS)),
            (1 / 2 + 2 / 3) / 2,
        ),
        ByHand(
            "all; none", lambda: [logic_of(triples_of(g), triples_of(STEPS)) for g in (STEPS, [])], [1, 0]
        ),
        ByHand(
            "a sentence names both; a model reads another",
            lambda: float([_noted(), _noted(extractor="teacher")] == [STEPS[:1], STEPS[1:]]),
            1,
        ),
        ByHand("first: right, all steps, nothing found", lambda: _rewarded(0, graph=STEPS), [1.8, 1, 0]),
        ByHand(
            "second: one of two found, though wrong",
            lambda: _rewarded(1, 0.0, ["Rest  helps much."]),
            [0.5, 0, 0.5],
        ),
        ByHand("third: all", lambda: _rewarded(2, 1.0, ["rest helps", "Drink!"], STEPS), [2.8, 1, 1]),
        ByHand("a call that cannot be read", lambda: _rewarded(2, unreadable=1)[0], -0.1),
        OffPolicy(
            "blame is bounded by 3 |A|; every token counts alike",
            ratio=(1.1, 5.0, 0.5),
            advantage=(1.0, -1.0, -1.0),
            lengths=(1, 2),
            loss=(-1.1 + 3.0 + 0.8) / 3,
            gradient=(-1.1 / 3, 0, 0),
        ),
        Reduction(
            "no task names triples, first stage: GRPO with this mean",
            "grpo",
            {"objective.dual_clip": None},
            {"objective.mean": "token"},
        ),
    ),
)
