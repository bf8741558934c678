"""Socratic-Zero: a teacher rewrites problems at the edge of what the solver can do, and a generator learns to write as it does.

A problem that the solver always solves is made harder; one that it solves now and then is varied, after an answer that failed; one that it never
solves waits. The solver learns from right against wrong answers (DPO). The generator imitates the teacher's rewritings, most those that the solver
solves half the time. Socratic-Zero, arXiv 2509.24726."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import imitate, tagged
from etude.credit.pairs import Pairs, preferred, sampled_pairs
from etude.curriculum.written import MostKept, Near, News, Written, WrittenTasks
from etude.fixtures.curricula import ExampleContext, attempts_at, built, example_task
from etude.fixtures.given import GivenModel, example_answers, example_demonstration
from etude.methods.preference.dpo import PREFERRED
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.imitation import cross_entropy
from etude.objective.preference import PAIR
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.basic import single
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks.posed import with_answer
from etude.types import Episode, Group, Message, Request, Signal, Task

GENERATOR = "generator"
REWRITTEN = "rewritten"
"""Note of the attempt that a problem was rewritten after: a `Rewriting`."""

PROBES, REWRITES = 1 << 16, 1 << 17  # indices of the attempts at a rewritten problem, and of its writing

HARDER = "{question}\n\nThis was solved:\n{answer}\n\nWrite a harder problem of this kind, and its answer.\nProblem: ...\nAnswer: ..."
AGAIN = (
    "{question}\n\nThis answer to it is wrong:\n{answer}\n\nWrite another problem on which the same mistake shows, and its answer."
    "\nProblem: ...\nAnswer: ..."
)


@dataclass(frozen=True)
class Rewriting:
    """What was written after an attempt: the problem, the share of the solver's attempts that solve it, and the writing itself."""

    task: Task
    rate: float
    episode: Episode

    def __str__(self) -> str:
        return f"{self.task.prompt[-1].content} (solved: {self.rate:.0%})"


# ---- group rollout: attempts, then a rewriting and attempts at it ----------------------------------------------------


class Rewritten:
    """Attempts. Where all are right, one of them is shown and a harder problem asked for; where some are, a wrong one and a variant;
    where none is, the solution is laid out beside them. What is written is attempted `probes` times, paid for and not trained on."""

    def __init__(
        self,
        writer: WhoWrites = "start",
        probes: Annotated[int, Setting("k, attempts at a rewritten problem", low=1, high=256)] = 8,
        generator_from: Annotated[
            float,
            Setting("share of the run from which the generator writes in the teacher's place", low=0, high=1),
        ] = 0.5,
        harder_request: Annotated[
            str, Setting("how a harder problem is asked for, after {question} and {answer}")
        ] = HARDER,
        variant_request: Annotated[
            str, Setting("how a variant is asked for, after {question} and a wrong {answer}")
        ] = AGAIN,
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.harder, self.variant = harder_request, variant_request
        self.writer = Writer(writer, address, longest)
        self.reads = self.writer.reads
        self.probes, self.generator_from = probes, generator_from

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        episodes = await rollouts.plays(range(rollouts.samples))
        done = [i for i, e in enumerate(episodes) if e.failure is None]
        right = [i for i in done if episodes[i].correct]
        wrong = [i for i in done if not episodes[i].correct]
        if not right:  # too hard: its own solution is what wins
            known = rollouts.task.reference or rollouts.task.answer
            return [*episodes, rollouts.demonstrate()] if wrong and known else episodes
        after, wording = (wrong[0], self.variant) if wrong else (right[0], self.harder)
        found = await self._rewrite(rollouts, wording, episodes[after].text)
        if found is not None:
            noted = {**episodes[after].notes, REWRITTEN: found}
            episodes[after] = replace(episodes[after], notes=noted)
        return episodes

    async def _rewrite(self, rollouts: GroupRollout, wording: str, answer: str) -> Rewriting | None:
        example = rollouts.task
        asked = wording.replace("{answer}", answer).replace("{question}", example.prompt[-1].content)
        asking = Task((Message("user", asked),), example.check, kind="rewrite")
        talk = rollouts.conversation(REWRITES, asking)
        if GENERATOR in rollouts.generators and rollouts.progress >= self.generator_from:
            talk = rollouts.conversation(REWRITES, asking, rollouts.generators[GENERATOR])
            talk.user(asked)
            text = await talk.reply(tag=REWRITTEN)
        else:
            text = await self.writer.write(talk, asking.prompt, REWRITTEN)
        task = with_answer(example, text)
        if task is None or not rollouts.admits(task):
            return None
        plays = (rollouts.play(PROBES + i, single(), task) for i in range(self.probes))
        tried = [e.correct for es in await asyncio.gather(*plays) for e in es if e.failure is None]
        return Rewriting(task, float(np.mean(tried)) if tried else 0.0, talk.done())


# ---- curriculum: D_{t+1} = D_t and what was rewritten ------------------------------------------------------------------


def usefulness(rate: float, mu: float = 0.5, sigma: float = 0.2) -> float:
    """U = exp(-(s - mu)^2 / (2 sigma^2)): 1 for a problem solved half the time, 0.044 for one solved always or never."""
    return float(np.exp(-((rate - mu) ** 2) / (2 * sigma**2)))


class Growing:
    """`seeds` problems are drawn to begin with. Then `replay` of the problems are ones that were met, each equally likely, and so
    rated anew; the others are new rewritings, the oldest first. Teaches the generator, and moves the reference between rounds."""

    def __init__(
        self,
        seeds: Annotated[int, Setting("problems drawn to begin with", low=1)] = 100,
        replay: Annotated[float, Setting("share of problems that were met before", low=0, high=1)] = 0.25,
        round_steps: Annotated[
            int, Setting("steps after which DPO's reference becomes the policy", "steps", low=1)
        ] = 20,
        near: Near = 1.0,
        most_kept: MostKept = 16384,
    ) -> None:
        self.seeds, self.replay, self.round_steps = seeds, replay, round_steps
        self.written = WrittenTasks(near, most_kept)
        self.new: list[str] = []  # keys of rewritings that were not attempted yet
        self.begun = 0  # problems that were drawn
        self.last: dict[str, float] = {}

    def next(self, n: int, context: Context) -> list[Request]:
        missing = max(0, self.seeds - self.begun)
        requests = [Request(why="to begin with") for _ in range(min(n, missing))]
        rng = context.rng("replay", context.drawn)
        waiting = [key for key in self.new if key in self.written.kept]
        for _ in range(n - len(requests)):
            if waiting and rng.random() >= self.replay:
                task, why = self.written.kept[waiting.pop(0)].task, "new"
            else:
                task, why = self.written.sample(1, rng)[0].task, "met before"
            requests.append(Request(task=task, why=why))
        self.new = waiting
        return requests

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        for group in groups:
            if group.request.task is None:
                self.begun += 1
                self.written.add(
                    Written(group.task, step=context.step, writer="given to begin with"), context
                )
        self.written.judge(groups)
        found = [(e, e.notes[REWRITTEN]) for g in groups for e in g.episodes if REWRITTEN in e.notes]
        for episode, new in found:
            own = Written(new.task, episode.task.key, context.step, probed=new.rate)
            asked = new.episode.task.prompt[-1].content
            if self.written.add(replace(own, writer=new.episode.player, asked=asked), context):
                self.new.append(new.task.key)
        rates = [new.rate for _, new in found]
        lessons = [imitate(n.episode, tagged(n.episode, REWRITTEN), usefulness(n.rate)) for _, n in found]
        if lessons:
            context.auxiliary[GENERATOR].learn(cross_entropy(), lessons, context.step, context.progress)
        if (context.step + 1) % self.round_steps == 0:
            context.auxiliary["reference"].become(context.policy)
        zones = [float(np.mean([e.correct for e in g.episodes])) for g in groups if g.episodes]
        self.last = {
            "rewritten": len(found) / max(1, sum(z > 0 for z in zones)),
            "mastered": float(np.mean([z == 1 for z in zones])) if zones else 0.0,
            "too_hard": float(np.mean([z == 0 for z in zones])) if zones else 0.0,
        }
        if rates:
            self.last |= {
                "rate": float(np.mean(rates)),
                "useful": float(np.mean([usefulness(r) for r in rates])),
            }

    def news(self) -> list[News]:
        return self.written.news()

    def report(self) -> Mapping[str, float]:
        """Of the last step: the share of solved problems that a rewriting came of, of problems that are always and never solved; how
        often rewritings are solved, and how useful they are; and of all that are kept."""
        return {**self.last, **self.written.report(), "waiting": float(len(self.new))}

    def state_dict(self) -> dict[str, Any]:
        held = {"new": list(self.new), "begun": self.begun, "last": dict(self.last)}
        return {"written": self.written.state_dict(), **held}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.written.load_state_dict(state["written"])
        self.new, self.begun, self.last = list(state["new"]), state["begun"], dict(state["last"])


# ---- credit ----------------------------------------------------------------------------------------------------------


@writes("policy", extras=(PAIR,))
def winners_and_losers(
    pairs: Pairs = 4,
    solution_wins: Annotated[bool, Setting("where no answer is right, the solution is chosen")] = True,
) -> Any:
    """Pairs of a right and a wrong answer; where none is right, of the solution that was laid out and wrong answers."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        found = []
        for group in groups:
            losers = [e for e in group.episodes if not e.correct]
            if group.demonstrations and len(losers) == len(group.episodes) and solution_wins:
                for number, loser in enumerate(losers[:pairs], 1):
                    found += [preferred(group.demonstrations[0], 1.0, number), preferred(loser, -1.0, number)]
            else:
                found += sampled_pairs(group, context, pairs, 1e-6)
        return found

    return credit


# ---- the recipe -------------------------------------------------------------------------------------------------------


def _credit(*rewards: float, **settings: Any) -> list[list[float]]:
    """Advantage and pair of each signal, for attempts with these rewards beside a solution."""
    group = replace(
        example_answers(*((r, (2,)) for r in rewards)), demonstrations=(example_demonstration("a"),)
    )
    signals = built(RECIPE, "credit", settings)([group], ExampleContext())
    return [[float(s.advantage[-1]), float(s.extras[PAIR][-1])] for s in signals]


def _grown(*rates: float) -> tuple[Growing, ExampleContext]:
    """After a step in which a seed was attempted and rewritten with each of these rates, of four seeds."""
    growing: Growing = built(RECIPE, "curriculum", {"seeds": 4, "replay": 0.0, "round_steps": 1})
    context = ExampleContext(
        auxiliary={GENERATOR: GivenModel(), "reference": GivenModel()}, policy=GivenModel()
    )
    groups = []
    for i, rate in enumerate(rates):
        group = attempts_at(("seed", 0.0), [1.0, 0.0], i)
        writing = replace(example_demonstration("b"), player="start")
        spans = tuple(replace(s, tag=REWRITTEN if s.tag == DEMONSTRATED else s.tag) for s in writing.spans)
        new = Rewriting(
            example_task(("written", 1.0), i), rate, replace(writing, spans=spans, task=group.task)
        )
        noted = replace(group.episodes[1], notes={REWRITTEN: new})
        groups.append(replace(group, episodes=(group.episodes[0], noted)))
    context.policy.value = 7.0
    growing.observe(groups, [], context)
    return growing, context


def _asked(n: int) -> list[float]:
    """Of the next n: how many are drawn, and how many are rewritings; after two seeds of four, each rewritten."""
    growing, context = _grown(0.5, 0.0)
    requests = growing.next(n, context)
    return [sum(r.task is None for r in requests), sum(r.why == "new" for r in requests)]


def _weights() -> list[float]:
    """The generator's lesson on two rewritings, and what the reference has become."""
    _, context = _grown(0.5, 0.0)
    ((_, signals),) = context.auxiliary[GENERATOR].lessons
    return [*(float(s.weights["imitation"][-1]) for s in signals), context.auxiliary["reference"].value]


RECIPE: Recipe = Recipe(
    name="socratic_zero",
    base=DPO,
    paper=Paper(
        "Socratic-Zero: Bootstrapping Reasoning via Data-Free Agent Co-evolution", "2509.24726", 2025
    ),
    published_lr=1e-6,
    idea="A teacher looks at what the solver's answers to a problem came to. What is always solved it makes harder, what is solved now and then it "
    "varies, so that there are always problems to learn from. A third model learns to write as the teacher does.",
    equation="L = DPO(right, wrong);  q' ~ G(q, failed answer);  L_gen = - U(q') log pi_gen(q'),  U = exp(-(s - 1/2)^2 / (2 0.2^2))",
    departures=(
        "the teacher is the policy's frozen start by default (--set group_rollout.writer=teacher asks run.teacher); answers are judged by the "
        "task's own checker, and those of written problems are worked out where they can be, else what the teacher gives",
        "after the paper's appendix problems that are never solved are not rewritten (the main text rewrites every failure)",
        "a problem is rewritten once a visit; GUESS: at most four pairs a problem; the reference moves every 20 steps",
        "GUESS: in the second half of a run the generator writes in the teacher's place; the paper measures it after training",
        "the generator learns as it goes, without the paper's warm start, and at the policy's learning rate",
        "the released repository holds placeholders: built from the paper's text",
    ),
    stages={
        "curriculum": stage(Growing),
        "group_rollout": stage(Rewritten),
        "credit": stage(winners_and_losers),
    },
    auxiliary={GENERATOR: AuxiliaryModel("copy", lr=1.0, sampled=True)},
    needs=("text",),
    claim="Problems rewritten at the edge of what is solved raise accuracy more than as many that are rewritten without looking.",
    manipulation=(
        PREFERRED,
        Manipulated("a tenth of the solved problems are rewritten", r"curriculum\.rewritten", 0.1),
    ),
    examples=(
        ByHand(
            "U: half solved, always, never",
            lambda: [usefulness(s) for s in (0.5, 1, 0)],
            [1, 0.0439369, 0.0439369],
        ),
        ByHand("the generator's weights; the reference after a round", _weights, [1, 0.0439369, 7]),
        ByHand("two seeds are missing, then two rewritings, then one met before", lambda: _asked(5), [2, 2]),
        ByHand(
            "one of three right: one pair; none right: the solution against each, or nothing",
            lambda: [
                *np.ravel(_credit(1.0, 0.0, 0.0)),
                *np.ravel(_credit(0.0, 0.0)),
                len(_credit(0.0, 0.0, solution_wins=False)),
            ],
            [1, 1, -1, 1, 1, 1, -1, 1, 1, 2, -1, 2, 0],
        ),
        Reduction("where somebody is right: DPO", "dpo", {"credit.pairs": 1, "credit.solution_wins": False}),
    ),
)
