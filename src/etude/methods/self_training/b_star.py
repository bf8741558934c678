"""B-STaR: self-training that watches how varied and how good its samples are, and sets temperature and threshold by both.

Imitating one's own right answers makes samples better and alike: there is ever less to learn from. Before every round a few problems are
attempted at several temperatures, and of all temperatures and thresholds of reward those are taken that leave many right answers and
few wrong ones to a problem. B-STaR: Monitoring and Balancing Exploration and Exploitation in Self-Taught Reasoners, arXiv 2412.17256;
score and selection after the released code (hkust-nlp/B-STaR, `train_code/determine_hyper.py`)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from types import SimpleNamespace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.curricula import ExampleContext, example_task
from etude.fixtures.given import GivenContext, example_answers, example_demonstration, given_stage
from etude.fixtures.inference import collected
from etude.methods.imitation.rft import RECIPE as RFT
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.settings import Setting, stage
from etude.stages import Context, Credit, GroupRolloutStage
from etude.types import Episode, Group, Request, Signal
from etude.update import Update

DEV = "dev"  # purpose of the requests that are attempted at every temperature and not trained on
TEMPERATURE = "temperature"  # note of an attempt: at which it was drawn
DEV_TASKS = 1 << 24  # index of the first of their tasks: beyond every other's

GoldCounts = Annotated[bool, Setting("a task's own solution is a candidate of reward 1")]


@dataclass(frozen=True)
class Choice:
    """How a round samples and selects: temperature, the reward that a sample must exceed, and the most samples a task keeps."""

    temperature: float
    threshold: float
    most: int

    def written(self) -> str:
        return json.dumps([self.temperature, self.threshold, self.most])

    @classmethod
    def read(cls, purpose: str) -> Choice:
        return cls(*json.loads(purpose))


def selected(candidates: Sequence[tuple[float, bool, bytes]], threshold: float, most: int) -> list[int]:
    """Of (reward, right, words), by their numbers: those whose reward exceeds `threshold`, the highest first, `most` of them, the same
    words once."""
    order = sorted(range(len(candidates)), key=lambda i: -candidates[i][0])
    found: dict[bytes, int] = {}
    for i in [i for i in order if candidates[i][0] > threshold][:most]:
        found.setdefault(candidates[i][2], i)
    return list(found.values())


def balance(kept: Sequence[Sequence[bool]], enough: int) -> float:
    """The mean of bs = min(n' / n*, 1) n' / n over the problems that keep any sample: n samples, n' of them right. 0 where none does."""
    scores = [min(sum(k) / enough, 1.0) * sum(k) / len(k) for k in kept if k]
    return float(np.mean(scores)) if scores else 0.0


def candidates_of(group: Group, episodes: Sequence[Episode], gold: bool) -> list[tuple[float, bool, bytes]]:
    """(reward, right, words) of attempts, and of the demonstration, if it counts."""
    found = [(e.reward, e.correct, e.tokens[e.sampled].tobytes()) for e in episodes]
    shown = group.demonstrations[:1] if gold else ()
    return [*found, *((1.0, True, e.spans[-1].tokens.tobytes()) for e in shown)]


def smallest_most(
    problems: Sequence[Sequence[tuple[float, bool, bytes]]], threshold: float, target: float
) -> int:
    """The smallest cap at which the problems keep `target` samples on average; as many as there are, where none does."""
    largest = max((len(p) for p in problems), default=1)
    for most in range(1, largest + 1):
        if sum(len(selected(p, threshold, most)) for p in problems) >= target * len(problems):
            return most
    return max(largest, 1)


# ---- curriculum: what a round is sampled and selected with ------------------------------------------------------------


class Balanced:
    """A share of every step's tasks, the same ones in every round, is attempted at every temperature; what is chosen from these
    attempts holds for the next round."""

    def __init__(
        self,
        dev_share: Annotated[
            float, Setting("share of the tasks that are attempted at every temperature", low=0, high=0.9)
        ] = 0.25,
        enough: Annotated[int, Setting("n*: right answers to a problem that are enough", low=1)] = 8,
        target: Annotated[
            float, Setting("samples that a task shall keep on average; sets the cap", low=0.1)
        ] = 6.0,
        gold_counts: GoldCounts = True,
    ) -> None:
        self.share, self.enough, self.target, self.gold = dev_share, enough, target, gold_counts
        self.choice: Choice | None = None
        self.score = 0.0

    def next(self, n: int, context: Context) -> list[Request]:
        number = min(n - 1, max(1, round(self.share * n))) if self.share else 0
        same = (context.tasks.draw(Request(), DEV_TASKS + i, context.seed) for i in range(number))
        dev = [Request(task=task, purpose=DEV, why="every temperature") for task in same]
        now = self.choice or Choice(context.sampling.temperature, 0.0, 64)
        why = f"temperature {now.temperature:g}, reward above {now.threshold:g}"
        return [*dev, *(Request(purpose=now.written(), why=why) for _ in range(n - number))]

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Takes the temperature and the threshold of the highest score; of equals the lowest."""
        dev = [g for g in groups if g.request.purpose == DEV]
        best: tuple[float, Choice] | None = None
        for temperature in sorted({e.notes[TEMPERATURE] for g in dev for e in g.episodes}):
            problems = [
                candidates_of(g, [e for e in g.episodes if e.notes[TEMPERATURE] == temperature], self.gold)
                for g in dev
            ]
            for threshold in sorted({-1.0, *(r for p in problems for r, _, _ in p)}):
                most = smallest_most(problems, threshold, self.target)
                kept = [[p[i][1] for i in selected(p, threshold, most)] for p in problems]
                score = balance(kept, self.enough)
                if best is None or score > best[0]:
                    best = score, Choice(temperature, threshold, most)
        if best is not None:
            self.score, self.choice = best

    def report(self) -> Mapping[str, float]:
        """What the next round samples and selects with, and its score of balance."""
        return {**asdict(self.choice), "balance": self.score} if self.choice else {}

    def state_dict(self) -> dict[str, Any]:
        return {"choice": self.choice.written() if self.choice else "", "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.choice = Choice.read(state["choice"]) if state["choice"] else None
        self.score = state["score"]


# ---- group rollout ---------------------------------------------------------------------------------------------------


def at_temperatures(
    coolest: Annotated[float, Setting("lowest temperature that is examined", low=0.01)] = 0.5,
    hottest: Annotated[float, Setting("highest temperature that is examined", low=0.01)] = 1.2,
    temperatures: Annotated[int, Setting("temperatures that are examined, evenly apart", low=1, high=64)] = 4,
) -> GroupRolloutStage:
    """run.group_size attempts at the temperature that the request names; for those that are examined, at every one. With the task's
    own solution, where it has one."""
    grid = [float(t) for t in np.linspace(coolest, hottest, temperatures)]

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        purpose = rollouts.request.purpose
        if not purpose:
            return await rollouts.plays(range(rollouts.samples))
        wanted = grid if purpose == DEV else [Choice.read(purpose).temperature]
        found = await asyncio.gather(*(_at(rollouts, t, k) for k, t in enumerate(wanted)))
        known = rollouts.task.reference and rollouts.task.environment is None
        shown = [rollouts.demonstrate()] if known else []
        return [*(e for es in found for e in es), *shown]

    return group_rollout


async def _at(rollouts: GroupRollout, temperature: float, number: int) -> list[Episode]:
    generator = rollouts.generator
    own = replace(generator, params=replace(generator.params, temperature=temperature))
    first = number * rollouts.samples
    found = await replace(rollouts, generator=own).plays(range(first, first + rollouts.samples))
    return [replace(e, notes={**e.notes, TEMPERATURE: temperature}) for e in found]


# ---- credit ----------------------------------------------------------------------------------------------------------


@writes(IMITATION)
def selected_answers(gold_counts: GoldCounts = True) -> Credit:
    """Imitation of the samples that a round selects. They were drawn at another temperature than the loss is taken at, so nothing is
    made of the probabilities with which they were sampled."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            if group.request.purpose == DEV:
                continue
            purpose = group.request.purpose
            choice = Choice.read(purpose) if purpose else Choice(1.0, 0.0, 64)
            everybody = [*group.episodes, *(group.demonstrations[:1] if gold_counts else ())]
            known = candidates_of(group, group.episodes, gold_counts)
            signals += [
                _laid_out(everybody[i]) for i in sorted(selected(known, choice.threshold, choice.most))
            ]
        return signals

    return credit


def _laid_out(episode: Episode) -> Signal:
    where = episode.sampled
    if episode.demonstration:
        where = np.arange(len(where)) >= len(where) - len(episode.spans[-1])
    given = tuple(replace(s, sampled=False, logp=None) for s in episode.spans)
    return imitate(replace(episode, spans=given), where)


# ---- numbers ---------------------------------------------------------------------------------------------------------

TWO_RIGHT = ((1.0, True, b"a"), (1.0, True, b"a"), (0.9, True, b"b"), (0.2, False, b"c"))


def _dev(*answers: tuple[float, float, int]) -> Group:
    """Attempts of (temperature, reward, token)."""
    made = example_answers(*((r, (token,)) for _, r, token in answers))
    noted = tuple(
        replace(e, notes={TEMPERATURE: t}) for e, (t, _, _) in zip(made.episodes, answers, strict=True)
    )
    return replace(made, episodes=noted, request=Request(purpose=DEV))


def _chosen(*dev: Group, **settings: Any) -> list[float]:
    """Temperature, threshold, cap and score that are taken from these attempts."""
    curriculum = given_stage(RECIPE, "curriculum", enough=2, target=2.0, **settings)
    curriculum.observe(dev, [], ExampleContext())
    return list(curriculum.report().values())


def _asked(choice: Choice | None) -> list[float]:
    """Of eight requests: how many are examined, and the temperature of the others."""
    curriculum = given_stage(RECIPE, "curriculum")
    curriculum.choice = choice
    tasks = SimpleNamespace(draw=lambda request, index, seed: example_task(("a", 0.0), index))
    requests = curriculum.next(8, ExampleContext(tasks=tasks))
    return [sum(r.purpose == DEV for r in requests), Choice.read(requests[-1].purpose).temperature]


def _imitated(purpose: str, shown: bool = False, **settings: Any) -> list[int]:
    """The first words of the answers that are imitated: of 5 (reward 1), 6 (0), 5 (1), 7 (1), and of the solution 9."""
    made = example_answers((1.0, (5,)), (0.0, (6,)), (1.0, (5,)), (1.0, (7,)))
    demonstrations = (example_demonstration((9,)),) if shown else ()
    group = replace(made, request=Request(purpose=purpose), demonstrations=demonstrations)
    signals = given_stage(RECIPE, "credit", **settings)([group], GivenContext())
    return [int(s.episode.tokens[s.weights[IMITATION] > 0][0]) for s in signals]


def _drawn(purpose: str) -> list[float]:
    """The temperatures of attempts in the order of their numbers, one at each."""
    made = collected(RECIPE, ["7"] * 4, request=Request(purpose=purpose))
    return [e.notes.get(TEMPERATURE, 0.0) for e in made]


RECIPE: Recipe = Recipe(
    name="b_star",
    base=RFT,
    paper=Paper(
        "B-STaR: Monitoring and Balancing Exploration and Exploitation in Self-Taught Reasoners",
        "2412.17256",
        2024,
    ),
    published_lr=4.12e-6,
    idea="Before each round a few problems are attempted at several temperatures. That temperature and that threshold are taken with which "
    "most problems would keep many right answers and few wrong ones. "
    "So samples stay varied where varied ones are lacking, and good where good ones are.",
    equation="bs_i = min(n'_i / n*, 1) n'_i / n_i;  (T, tau) = argmax mean_i bs_i;  D = {y ~ pi_T : r(y) > tau};  theta <- argmin - sum_D log pi(y | x), "
    "from the last weights",
    departures=(
        "a round is a step; what is examined in one round holds for the next, so that the first is sampled as the run is and keeps what is right",
        "the reward is the run's own (the checker's verdict, or parts with --reward, such as a reward model's at weight 0.2); the paper adds a "
        "fifth of a process reward model's lowest step on mathematics",
        "four temperatures from 0.5 to 1.2, run.group_size samples at each; the release examines fifteen with 64 samples on 1,000 problems",
        "every threshold between two rewards that were seen is tried; the release tries -1 to 1 by hundredths",
        "what is examined comes from the training tasks and is not trained on",
    ),
    stages={
        "curriculum": stage(Balanced),
        "group_rollout": stage(at_temperatures),
        "credit": stage(selected_answers),
        "update": stage(Update, passes=2, minibatches=4),
    },
    needs=("text",),
    claim="The share of problems that one of many samples solves falls less over the rounds than at a fixed temperature, and accuracy ends higher.",
    manipulation=(
        Manipulated(
            "the temperature that is taken moves by 0.2", r"curriculum\.temperature", 0.2, read="range"
        ),
    ),
    examples=(
        ByHand(
            "4 of 4 right and 1 of 2: (1 + 1/4 x 1/2) / 2; who keeps none does not count; none right; nothing",
            lambda: [balance(k, 4) for k in ([[True] * 4, [True, False]], [[True] * 8, []], [[False]], [])],
            [(1 + 0.125) / 2, 1, 0, 0],
        ),
        ByHand(
            "above 0.5, of the three highest, a once",
            lambda: [i for t, n in ((0.5, 3), (0.5, 1), (-1.0, 64)) for i in selected(TWO_RIGHT, t, n)],
            [0, 2, 0, 0, 2, 3],
        ),
        ByHand(
            "two problems that keep 1 of 2 alike, and 3: 2 each at a cap of 3; never enough: all",
            lambda: [
                smallest_most([TWO_RIGHT[:2], [(1.0, True, bytes([i])) for i in range(3)]], 0.0, 2.0),
                smallest_most([TWO_RIGHT[:2]], 0.0, 2.0),
            ],
            [3, 2],
        ),
        ByHand(
            "cool: one right, all alike; hot: two right, one wrong: min(2 / 2, 1), whatever the threshold, at a cap of 2",
            lambda: _chosen(
                _dev((0.5, 1, 5), (0.5, 1, 5), (0.5, 1, 5), (1.0, 1, 5), (1.0, 1, 6), (1.0, 0, 7))
            ),
            [1.0, -1.0, 2, 1.0],
        ),
        ByHand(
            "two of eight are examined; the run's own temperature first, then what was chosen",
            lambda: [*_asked(None), *_asked(Choice(0.7, 0.0, 4))],
            [2, 1.0, 2, 0.7],
        ),
        ByHand(
            "5 once, and 7; with the solution; one of them; wrong ones as well; nothing of what is examined",
            lambda: [
                *_imitated(""),
                *_imitated("", shown=True),
                *_imitated(Choice(1.0, 0.0, 1).written()),
                *_imitated(Choice(1.0, -1.0, 4).written()),
                len(_imitated(DEV)),
            ],
            [5, 7, 5, 7, 9, 5, 5, 6, 7, 0],
        ),
        ByHand(
            "examined at four temperatures; trained on at the one named; else as the run samples",
            lambda: [*_drawn(DEV), *_drawn(Choice(0.7, 0.0, 4).written()), *_drawn("")],
            [0.5, 0.5 + 0.7 / 3, 0.5 + 1.4 / 3, 1.2, 0.7, 0],
        ),
        Reduction(
            "nothing examined, no solutions, one pass: rejection-sampling fine-tuning",
            "rft",
            {
                "curriculum.dev_share": 0.0,
                "credit.gold_counts": False,
                "update.passes": 1,
                "update.minibatches": 1,
            },
        ),
    ),
)
