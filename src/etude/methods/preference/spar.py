"""SPaR: an answer that breaks an instruction is repaired by a tree search, and preferred to what it was made of.

Two answers that were sampled apart differ in much that the instruction does not speak of. Here a refiner rewrites a wrong answer, over and over, until
what was wrong is mended; the pair then differs in that alone. The actor learns from such pairs by DPO, the refiner from the refinements that succeeded
and from its own judgements. SPaR, arXiv 2412.11605; search and data after the released code (thu-coai/SPaR)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.credit.pairs import imitating_chosen, preferred, sampled_pairs
from etude.fixtures.curricula import ExampleContext, built
from etude.fixtures.given import GivenModel, example_answers, example_demonstration
from etude.fixtures.inference import Spoken, collected
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.methods.preference.iterative_dpo import PairsInRounds
from etude.objective.imitation import cross_entropy, imitation
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.attempts import reworded
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.second import REFINE, heard, worded
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Episode, Group, Signal

REFINER = "refiner"
MENDED = "mended"
"""Note of a wrong answer: what was made of it, a `Repair`."""

FIRST = 1 << 16  # index of the first conversation of the search: beyond every sample's
JUDGE = "{question}\n\nAn answer:\n{answer}\n\nDoes it do all that is asked? Say what is wrong, if anything is. Then answer Yes or No."


@dataclass(frozen=True)
class Repair:
    """What a search found: the repaired answer (None: nothing), how many refinements it took, and what the refiner is to imitate: the
    refinement that succeeded, and judgements that the majority agreed with."""

    text: str | None
    refinements: int
    lessons: tuple[Episode, ...] = ()

    def __str__(self) -> str:
        return f"{self.refinements} refinements: {self.text or 'none met the instruction'}"


@dataclass
class Node:
    """An answer, what is said to be wrong with it, the share of judgements that find it right, and how it was written."""

    text: str
    critique: str
    value: float
    written: Episode | None = None
    judged: tuple[Episode, ...] = ()


class TreeRefined:
    """Answers; one wrong answer of a group is repaired by a search of breadth first: `branch` refinements of each of the best `beam` nodes,
    `depth` times, until one is right by more than half of the judgements. The answer that was found is laid out as a demonstration."""

    def __init__(
        self,
        depth: Annotated[int, Setting("refinements in a row at most", low=1, high=64)] = 3,
        branch: Annotated[int, Setting("refinements of each answer", low=1, high=64)] = 3,
        beam: Annotated[int, Setting("answers that are refined further", low=1, high=64)] = 2,
        judge: Annotated[
            str, Setting("who judges answers: the task's check, or votes", choices=("check", "refiner"))
        ] = "check",
        judgements: Annotated[
            int, Setting("votes on an answer, where the refiner judges", low=1, high=64)
        ] = 5,
        refine_request: Annotated[str, Setting("how a refinement is asked for")] = REFINE,
        judge_request: Annotated[str, Setting("how the refiner is asked to judge")] = JUDGE,
    ) -> None:
        self.depth, self.branch, self.beam = depth, branch, beam
        self.judge, self.judgements = judge, judgements if judge == "refiner" else 1
        self.refine_request = worded(refine_request, "question", "answer", "feedback")
        self.judge_request = worded(judge_request, "question", "answer")
        self.last: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        if REFINER not in rollouts.generators:
            return episodes
        search = _Search(self, rollouts)
        for i, episode in enumerate(episodes):
            if episode.failure is not None:
                continue
            root = await search.judged(episode.text)
            if root.value < 0.5:
                found = await search.repair(root)
                episodes[i] = replace(episode, notes={**episode.notes, MENDED: found})
                if found.text is not None:
                    shown = rollouts.conversation(FIRST)
                    shown.user(rollouts.task.prompt)
                    shown.inject(found.text, DEMONSTRATED)
                    episodes.append(replace(shown.done(), player=DEMONSTRATED).with_scores({"reward": 1.0}))
                break
        return episodes

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        made = [(e, e.notes[MENDED]) for g in groups for e in g.episodes if MENDED in e.notes]
        lessons = [imitate(e, e.sampled) for _, repair in made for e in repair.lessons]
        if lessons:
            context.auxiliary[REFINER].learn(cross_entropy(), lessons, context.step, context.progress)
        kept = [_alike(e.text, r.text) for e, r in made if r.text is not None]
        self.last = {"repaired": len(kept) / len(made)} if made else {}
        self.last |= {"alike": float(np.mean(kept))} if kept else {}

    def report(self) -> Mapping[str, float]:
        """Of the wrong answers that were searched from, the share that was repaired, and how much of their words stayed."""
        return {"repaired": 0.0, **self.last}


class _Search:
    def __init__(self, how: TreeRefined, rollouts: GroupRollout) -> None:
        self.how, self.rollouts, self.made = how, rollouts, 0

    async def say(self, asked: str, tag: str) -> Episode:
        """The refiner's words on a text."""
        number, self.made = FIRST + 1 + self.made, self.made + 1
        task = self.rollouts.task
        talk = self.rollouts.conversation(number, task, self.rollouts.generators[REFINER])
        talk.user(reworded(task.prompt, asked))
        await talk.reply(tag=tag)
        return talk.done()

    async def judged(self, text: str, written: Episode | None = None) -> Node:
        """The answer with what is thought of it: the check's verdict and feedback, or the majority of the refiner's judgements."""
        task, how = self.rollouts.task, self.how
        if how.judge == "check":
            found = await self.rollouts.check_runner(task, text)
            return Node(text, heard(found, task), float(found.correct), written)
        asked = how.judge_request.format(question=task.prompt[-1].content, answer=text)
        votes = await asyncio.gather(*(self.say(asked, "judgement") for _ in range(how.judgements)))
        yes = [_says_yes(v.text) for v in votes]
        value = sum(yes) / len(yes)
        agreed = tuple(v for v, y in zip(votes, yes, strict=True) if y == (value > 0.5) and value != 0.5)
        return Node(text, agreed[0].text if agreed else "", value, written, agreed[:1])

    async def refined(self, node: Node) -> list[Node]:
        question = self.rollouts.task.prompt[-1].content
        asked = self.how.refine_request.format(question=question, answer=node.text, feedback=node.critique)
        made = await asyncio.gather(*(self.say(asked, "refinement") for _ in range(self.how.branch)))
        return list(await asyncio.gather(*(self.judged(e.text, e) for e in made)))

    async def repair(self, root: Node) -> Repair:
        """Breadth first, from an answer that is wrong."""
        level, tried, judged = [root], 0, list(root.judged)
        for _ in range(self.how.depth):
            found = [child for node in level for child in await self.refined(node)]
            tried += len(found)
            judged += [j for node in found for j in node.judged]
            best = next((node for node in found if node.value > 0.5), None)
            if best is not None and best.written is not None:
                return Repair(best.text, tried, (best.written, *_balanced(judged)))
            level = sorted(found, key=lambda node: -node.value)[: self.how.beam]
        return Repair(None, tried, tuple(_balanced(judged)))


def _alike(before: str, after: str) -> float:
    """Twice the words that stayed, over the words of both."""
    return SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio()


def _says_yes(text: str) -> bool:
    return text.rfind("Yes") > text.rfind("No")


def _balanced(judgements: Sequence[Episode]) -> list[Episode]:
    """As many that found an answer right as that found one wrong."""
    yes, no = ([j for j in judgements if _says_yes(j.text) == wanted] for wanted in (True, False))
    return [j for pair in zip(yes, no, strict=False) for j in pair]


# ---- credit and loss -------------------------------------------------------------------------------------------------


@writes("policy", IMITATION, extras=(PAIR,))
class RepairedPairs(PairsInRounds):
    """The repaired answer over the one that it was made of; with `repaired` off, the best and the worst answer of a group. After each of
    `rounds` parts of the run the reference becomes the policy."""

    def __init__(
        self,
        rounds: Annotated[
            int, Setting("rounds; after each the reference becomes the policy", "rounds", low=1, high=1000)
        ] = 3,
        repaired: Annotated[
            bool, Setting("pairs of a repaired answer; without, of answers sampled apart")
        ] = True,
    ) -> None:
        super().__init__(rounds)
        self.repaired = repaired

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        return [imitating_chosen(s) for g in groups for s in self._pair(g, context)]

    def _pair(self, group: Group, context: Context) -> list[Signal]:
        if not self.repaired:
            return sampled_pairs(group, context, 1, 1e-6)
        wrong = [e for e in group.episodes if MENDED in e.notes]
        if not wrong or not group.demonstrations:
            return []
        return [preferred(group.demonstrations[0], 1.0), preferred(wrong[0], -1.0)]


def dpo_with_imitation(
    dpo_beta: DpoBeta = 0.1,
    sft_weight: Annotated[
        float, Setting("weight of the better answer's cross-entropy, a mean over its tokens", low=0)
    ] = 0.1,
) -> Objective:
    """-log sigmoid(beta (d+ - d-)) - sft_weight mean_t log pi(y+_t)."""

    def loss(better: Side, worse: Side) -> Tensor:
        return pair_loss(better.over_reference - worse.over_reference, dpo_beta)

    return over_pairs(loss, imitation(sft_weight, "episode"))


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _found(answer: str, *said: str, **settings: Any) -> tuple[str, int, int]:
    """The repaired answer, how many refinements were made, and how many texts the refiner is to imitate."""
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    made = collected(RECIPE, [answer], {REFINER: said}, named)
    repair = made[0].notes.get(MENDED, Repair("not searched", 0))
    laid = [Spoken().decode(e.spans[-1].tokens) for e in made if e.demonstration]
    assert laid == ([repair.text] if repair.text and MENDED in made[0].notes else [])
    return repair.text or "", repair.refinements, len(repair.lessons)


def _pairs(**settings: Any) -> list[list[float]]:
    """Advantage and imitation weight of each signal, of a group with a right answer, a mended wrong one and another wrong one."""
    group = example_answers((1.0, (2,)), (0.0, (3,)), (0.0, (4,)))
    noted = replace(group.episodes[1], notes={MENDED: Repair("a", 1)})
    group = replace(
        group,
        episodes=(group.episodes[0], noted, group.episodes[2]),
        demonstrations=(example_demonstration("a"),),
    )
    signals = built(RECIPE, "credit", settings)([group], ExampleContext())
    return [[float(s.advantage[-1]), float(s.weights[IMITATION][-1])] for s in signals]


def _taught() -> list[float]:
    """What the refiner is taught of two groups, in tokens; and what is reported."""
    part = built(RECIPE, "group_rollout")
    context = ExampleContext(auxiliary={REFINER: GivenModel()})
    group = example_answers((0.0, (2, 3)), (0.0, (4,)))
    lesson = example_answers((0.0, (5, 6, 7))).episodes[0]
    first = replace(group.episodes[0], text="a b c d", notes={MENDED: Repair("a b c e", 2, (lesson,))})
    second = replace(group.episodes[1], text="a", notes={MENDED: Repair(None, 9)})
    part.observe([replace(group, episodes=(first, second))], [], context)
    ((_, signals),) = context.auxiliary[REFINER].lessons
    return [float(sum(s.weights[IMITATION].sum() for s in signals)), *part.report().values()]


W = 1 / (1 + 24**0.1)  # DPO's row: sigmoid(-beta margin)

RECIPE: Recipe = Recipe(
    name="spar",
    base=DPO,
    paper=Paper(
        "SPaR: Self-Play with Tree-Search Refinement to Improve Instruction-Following in Large Language Models",
        "2412.11605",
        2024,
    ),
    published_lr=2e-7,
    idea="Answers that were sampled apart differ in much besides being right. A wrong answer is therefore repaired step by step until it does what "
    "was asked, and the policy learns to prefer the repaired one. The refiner learns from repairs that succeeded.",
    equation="y+ = first child with V > 1/2 in a breadth-first search from y-;  L = - log sigmoid(beta [d+ - d-]) - 0.1 mean_t log pi(y+_t)",
    departures=(
        "the task's own check judges by default, which exact constraints have (-t constraints); group_rollout.judge=refiner takes the majority of "
        "the refiner's judgements, as the paper does",
        "every group with a wrong answer gives one pair, from its first wrong answer, trained on at once; the paper collects a data set in each of "
        "three rounds and trains two models on it. credit.rounds moves DPO's reference as its rounds do",
        "the refiner begins as the policy and learns at its rate; the paper gives it ten times the actor's, and five epochs",
        "of judgements, one of the majority on each answer is kept, and as many for right answers as for wrong ones",
    ),
    stages={
        "group_rollout": stage(TreeRefined),
        "credit": stage(RepairedPairs),
        "objective": stage(dpo_with_imitation),
    },
    auxiliary={REFINER: AuxiliaryModel("copy", lr=1.0, sampled=True)},
    defaults={"group_size": 5},
    needs=("text",),
    claim="Repaired pairs raise accuracy more than as many pairs of answers that were sampled apart.",
    manipulation=(
        PREFERRED,
        Manipulated("a tenth of the wrong answers are repaired", r"group_rollout\.repaired", 0.1),
    ),
    examples=(
        ByHand(
            "a right answer; one repaired by the second of three; one by the fifth; none within two",
            lambda: float(
                [
                    _found("7"),
                    _found("6", "5", "7", "8"),
                    _found("6", "5", "4", "3", "2", "7", "1", "0", "9", "8"),
                    _found("6", *"543210123", depth=2),
                ]
                == [("not searched", 0, 0), ("7", 3, 1), ("7", 9, 1), ("", 9, 0)]
            ),
            1,
        ),
        ByHand(
            "the refiner judges: 1 of 3 says Yes of the answer, 2 of 3 of its refinement; a judgement of each is kept",
            lambda: float(
                _found(
                    "6", "No", "Yes", "No", "9", "Yes", "No", "Yes", branch=1, judge="refiner", judgements=3
                )
                == ("9", 1, 3)
            ),
            1,
        ),
        ByHand(
            "repaired over wrong; or right over a wrong one",
            lambda: [_pairs(), _pairs(repaired=False)],
            [[[1, 1], [-1, 0]]] * 2,
        ),
        ByHand(
            "the refiner imitates three tokens; 1 of 2 was repaired, 3 of 4 words stayed",
            _taught,
            [3, 0.5, 0.75],
        ),
        OffPolicy(
            "DPO's row of margin log 24, and a tenth of the mean negative log-likelihood of y+, (2 - log 2) / 2",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            weights={"policy": (1, 1, 1), IMITATION: (1, 1, 0)},
            extras={"reference": (-1.0, -1 - np.log(3), np.log(2) - 1), PAIR: (1, 1, 1)},
            loss=-np.log(1 - W) + 0.1 * (2 - np.log(2)) / 2,
            gradient=(-0.1 * W - 0.05, -0.1 * W - 0.05, 0.1 * W),
        ),
        Reduction(
            "pairs sampled apart, nothing imitated: DPO",
            "dpo",
            {"credit.repaired": False, "objective.sft_weight": 0.0},
        ),
    ),
)
