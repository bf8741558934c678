"""Pragmatic examples: a speaker shows what a program does by the examples that leave a listener the fewest doubts.

The listener reads examples, an input and its output each, and says which program makes them; the speaker knows the program and says
which example comes next. Of what the speaker offers, the example is taken with which the fewest of the listener's hypotheses agree: what
a person would show who wants to be understood. Both then learn from the specifications that came of it, and understand each other,
and people, from fewer examples. Generating Pragmatic Examples to Train Neural Program Synthesizers, arXiv 2311.05740; choice and
rounds after the released code (saujasv/generating-pragmatic-examples, `pragmatic_speaker.py`).

Its tasks are inductions of `triples` (`-t triples:kind=induction`)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, shown
from etude.credit.rounds import START, Anew, begin_round
from etude.fixtures.given import GivenContext, SetBack, given_stage
from etude.fixtures.inference import collected
from etude.methods.imitation.sft import RECIPE as SFT
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.demonstrate import answer_tokens
from etude.rollout.group_rollout import GroupRollout, optional_verdict
from etude.settings import Setting, stage
from etude.stages import Context, GroupRolloutStage
from etude.tasks.check import NoText
from etude.tasks.extract import extract
from etude.tasks.languages import Arithmetic, Language, same
from etude.tasks.triples import TRIPLE, Pair, Triple, task_of
from etude.types import Array, Episode, Group, Message, Signal, Span, Task
from etude.update import Update

SPEC = "spec"
"""Note of a task's demonstration: its `Spec`."""

SPEAK = "speak"  # kind of the speaker's tasks
NONE_YET = "(no examples yet)"
LISTEN = "{pairs}\nWhich program makes these outputs of these inputs? Answer as <answer>program</answer>."
SHOW = "Program: {program}\nShown so far:\n{pairs}\nWhich input tells it best from other programs? Answer as <answer>input</answer>."


@dataclass(frozen=True)
class Spec:
    """A program, the examples that were chosen for it, and how many hypotheses of the listener's agreed with all but the last of
    them, and how many with the last as well, of each choice."""

    language: Language
    program: str
    pairs: tuple[Pair, ...]
    left: tuple[tuple[int, int], ...] = ()


def _lines(pairs: Sequence[Pair]) -> str:
    return "\n".join(f"{i} -> {o}" for i, o in pairs) or NONE_YET


def listening(task: Task, pairs: Sequence[Pair]) -> Task:
    """The task of finding the program that these examples show. What is right, `task` says."""
    return replace(task, prompt=(Message("user", LISTEN.format(pairs=_lines(pairs))),))


def speaking(program: str, pairs: Sequence[Pair]) -> Task:
    """The task of saying which input to show next."""
    text = SHOW.format(program=program, pairs=_lines(pairs))
    return Task((Message("user", text),), NoText(SPEAK), kind=SPEAK)


def agrees(language: Language, program: str, pairs: Sequence[Pair]) -> bool:
    return all(same(language.run(program, i), o) for i, o in pairs)


def most_telling(agreement: Array) -> int:
    """argmax_u S1(u | p) over the columns of a matrix M[h, u] of 0 and 1, of which the last row is the program's own:

    L0(h | u) = M_hu / sum_h' M_h'u;   S1(u | h) = L0(h | u) / sum_u' L0(h | u')."""
    listener = agreement / agreement.sum(axis=0, keepdims=True)
    speaker = listener[-1] / listener[-1].sum()
    return int(np.argmax(speaker))


# ---- group rollout: a specification, example by example ---------------------------------------------------------------


def specifications(
    turns: Annotated[int, Setting("examples of a specification at most", low=1, high=64)] = 4,
    hypotheses: Annotated[
        int, Setting("programs that each listener is asked for before an example is chosen; 0: none", low=0)
    ] = 8,
    candidates: Annotated[int, Setting("inputs that each speaker is asked for, for each example", low=1)] = 4,
    at_random: Annotated[
        bool, Setting("take the task's own examples in place of chosen ones: literal training")
    ] = False,
) -> GroupRolloutStage:
    """Of an induction: its specification, as the note of a demonstration, and answers of the listener that has read it. Speakers
    and listeners are the policy and the model that it began as. Of any other task its solution is shown."""

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        triple = rollouts.task.meta.get(TRIPLE)
        if triple is None or len(triple.pairs) < 2:
            return [rollouts.demonstrate()]
        language = rollouts.task.check.language  # type: ignore[attr-defined]
        spec = Spec(language, triple.program, tuple(triple.pairs[:turns]))
        if not at_random:
            spec = await _Talk(rollouts, spec, hypotheses, candidates).specification(turns)
        heard = listening(rollouts.task, spec.pairs)
        rollouts.task = heard
        told = replace(rollouts.demonstrate(), notes={SPEC: spec})
        return [*await rollouts.plays(range(rollouts.samples)), told]

    return group_rollout


class _Talk:
    """Speakers and listeners about one program."""

    def __init__(self, rollouts: GroupRollout, spec: Spec, hypotheses: int, candidates: int) -> None:
        self.rollouts, self.spec = rollouts, replace(spec, pairs=())
        self.hypotheses, self.candidates = hypotheses, candidates
        start = replace(rollouts, generator=rollouts.generators[START])
        self.tables = (rollouts, start)
        self.asked = rollouts.samples  # indices from here on, so that no draw is used twice

    async def specification(self, turns: int) -> Spec:
        for _ in range(turns):
            task = self.rollouts.task
            said, offered = await asyncio.gather(
                self._replies(listening(task, self.spec.pairs), self.hypotheses),
                self._replies(speaking(self.spec.program, self.spec.pairs), self.candidates),
            )
            # Programs of a model's run in the sandbox, whose answers a thread waits for.
            self.spec = await asyncio.to_thread(self._extended, said, offered)
        return self.spec

    async def _replies(self, task: Task, number: int) -> list[str]:
        """The distinct answers of both models, in the order in which they were asked for."""

        async def say(task: Task, conversation: Conversation) -> Episode:
            conversation.user(task.prompt)
            await conversation.reply(tag=task.kind)
            return conversation.done()

        first = self.asked
        self.asked += number * len(self.tables)
        found = await asyncio.gather(
            *(
                table.play(first + k * number + i, say, task)
                for k, table in enumerate(self.tables)
                for i in range(number)
            )
        )
        texts = [extract(e.text, "tag") for es in found for e in es if e.failure is None]
        return list(dict.fromkeys(t.strip() for t in texts if t and t.strip()))

    def _extended(self, said: Sequence[str], offered: Sequence[str]) -> Spec:
        """The specification with the most telling of the inputs that were offered; as it is, where none runs."""
        spec = self.spec
        known = {i for i, _ in spec.pairs}
        pairs = [(i, spec.language.run(spec.program, i)) for i in offered if i not in known]
        offers = [(i, o) for i, o in pairs if o is not None]
        if not offers:
            return spec
        guesses = [p for p in said if p != spec.program and agrees(spec.language, p, spec.pairs)]
        rows = [[float(agrees(spec.language, p, [u])) for u in offers] for p in guesses]
        matrix = np.array([*rows, [1.0] * len(offers)])
        chosen = most_telling(matrix)
        left = (len(guesses), int(matrix[:-1, chosen].sum()))
        return replace(spec, pairs=(*spec.pairs, offers[chosen]), left=(*spec.left, left))


# ---- credit: both roles learn from all specifications -----------------------------------------------------------------


@writes(IMITATION)
class BothRoles:
    """Of every specification u_1..u_k of p, this step's and those of earlier steps: p after u_1..u_j for each j from 1, and u_j after p
    and u_1..u_{j-1}. In every round from the first weights. Demonstrations of other tasks are imitated as they are."""

    def __init__(
        self,
        anew: Anew = True,
        most_specs: Annotated[
            int, Setting("specifications of earlier rounds that are learnt again; the oldest leave", low=0)
        ] = 4096,
    ) -> None:
        self.anew, self.most = anew, most_specs
        self.kept: list[Spec] = []
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        begin_round(context, self.anew)
        new = [s for g in groups for e in g.demonstrations if (s := e.notes.get(SPEC)) is not None]
        plain = [
            replace(g, demonstrations=tuple(e for e in g.demonstrations if SPEC not in e.notes))
            for g in groups
        ]
        signals = [s for spec in (*self.kept, *new) for s in self._both(spec, context)]
        self.kept = [*self.kept, *new][-self.most :] if self.most else []
        told = [after / before for s in new for before, after in s.left if before]
        self.last = {
            "examples": float(np.mean([len(s.pairs) for s in new])) if new else 0.0,
            "left": float(np.mean(told)) if told else 1.0,
        }
        return [*signals, *shown(plain)]

    def _both(self, spec: Spec, context: Context) -> list[Signal]:
        asked = task_of(spec.language, Triple("induction", spec.program, spec.pairs)) if spec.pairs else None
        found = []
        for j, (given, _) in enumerate(spec.pairs):
            assert asked is not None
            found.append(_signal(speaking(spec.program, spec.pairs[:j]), given, context))
            found.append(_signal(listening(asked, spec.pairs[: j + 1]), spec.program, context))
        return found

    def report(self) -> dict[str, float]:
        """Of the last step's specifications: examples, and the share of the listener's hypotheses that an example leaves; and how many
        specifications are kept."""
        return {"specs": float(len(self.kept)), **self.last}

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self.kept), "last": dict(self.last)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.last = list(state["kept"]), dict(state["last"])


def _signal(task: Task, said: str, context: Context) -> Signal:
    renderer = context.policy.renderer
    prompt, words = renderer.prompt(task.prompt), answer_tokens(renderer, f"<answer>{said}</answer>")
    spans = (Span("user", prompt), Span("assistant", words, tag=task.kind))
    return imitate(Episode(task, spans), np.arange(len(prompt) + len(words)) >= len(prompt))


# ---- numbers -------------------------------------------------------------------------------------------------------

PLUS_TWO = Triple("induction", "X+2", (("1", "3"), ("2", "4"), ("5", "7"), ("6", "8")))


def _specified(policy: Sequence[str], start: Sequence[str], **settings: Any) -> Spec:
    """The specification of X+2, with one hypothesis and two candidates a model and turn. A model says its hypothesis first."""
    given = {"hypotheses": 1, "candidates": 2, "turns": 1, **settings}
    made = collected(
        RECIPE,
        [f"<answer>{t}</answer>" for t in (*policy, "X+2")],
        {START: [f"<answer>{t}</answer>" for t in start]},
        {f"group_rollout.{k}": v for k, v in given.items()},
        task=task_of(Arithmetic(), PLUS_TWO),
    )
    return next(e.notes[SPEC] for e in made if e.demonstration)


def _inputs(spec: Spec) -> list[float]:
    return [float(i) for i, _ in spec.pairs]


def _learnt(rounds: int = 1, **settings: Any) -> list[float]:
    """Of one specification of two examples a round: signals in the last round, and how often weights were put back."""
    credit, learner = given_stage(RECIPE, "credit", **settings), SetBack()
    spec = Spec(Arithmetic(), "X+2", PLUS_TWO.pairs[:2])
    task = task_of(Arithmetic(), PLUS_TWO)
    signals: list[Signal] = []
    for step in range(rounds):
        context: Any = GivenContext(step=step, auxiliary={START: None})
        context.learner = learner
        told = Episode(task, (), player="demonstration", notes={SPEC: spec})
        signals = credit([Group(task, (), demonstrations=(told,))], context)
    return [float(len(signals)), float(learner.back)]


def _said() -> list[str]:
    """What is learnt of a specification of two examples, in order, without the tags."""
    credit = given_stage(RECIPE, "credit")
    spec = Spec(Arithmetic(), "X+2", PLUS_TWO.pairs[:2])
    signals = credit._both(spec, GivenContext())
    return ["".join(chr(t) for t in s.episode.spans[-1].tokens[8:-10]) for s in signals]


RECIPE: Recipe = Recipe(
    name="pragmatic",
    base=SFT,
    paper=Paper("Generating Pragmatic Examples to Train Neural Program Synthesizers", "2311.05740", 2023),
    published_lr=5e-5,
    idea="A speaker shows a program by examples, and takes each time the one that fits the fewest of the programs which a listener takes "
    "for possible. Listener and speaker learn from the specifications that come of it. "
    "So they agree on examples that say much, and few of them are needed.",
    equation="L0(h | u) = M_hu / sum_h' M_h'u;  S1(u | p) = L0(p | u) / sum_u' L0(p | u');  u* = argmax_u S1(u | p);  "
    "theta_k = argmin from theta_0 of - sum_j [log pi(p | u_1..u_j) + log pi(u_j | p, u_1..u_{j-1})], over all rounds",
    stages={
        "group_rollout": stage(specifications),
        "reward": stage(optional_verdict),
        "credit": stage(BothRoles),
        "update": stage(Update, minibatches=8),
    },
    auxiliary={START: AuxiliaryModel("copy", sampled=True)},
    needs=("answer", "text"),
    departures=(
        "programs are those of `triples` and an example is an input with its output; the paper has regular expressions and strings",
        "listener and speaker are one model that is asked in two ways; the paper trains two",
        "4 examples from 8 hypotheses and 4 candidates of each model; the release has 10 from 250 of either, 1,024 programs a round and 10 rounds",
        "a step is a round, and the first weights are those that the run began with: train them with group_rollout.at_random=true "
        "credit.anew=false before, on random examples",
        "an input is offered once: one that was shown is not shown again; the release leaves that to the choice",
        "a candidate is taken that comes first among equals; the release takes the first in the order of letters",
        "tasks that are no inductions are imitated (SFT)",
    ),
    claim="A listener that learnt from chosen examples finds programs from fewer examples than one that learnt from random ones.",
    manipulation=(
        Manipulated("an example leaves at most nine hypotheses in ten", r"credit\.left", at_most=0.9),
    ),
    examples=(
        ByHand(
            "columns that 2, 1 and 1 hypotheses fit, the program aside: the second",
            lambda: most_telling(np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1]])),
            1,
        ),
        ByHand(
            "X*2 fits 2 and X+X+1 fits 1; of 2 and 5, which X*2 tells apart, 5; then nothing new",
            lambda: (
                _inputs(_specified(("X*2", "2", "5"), ("X+X+1", "5", "no")))
                + list(_specified(("X*2", "2", "5"), ("X+X+1", "5", "no")).left[0])
            ),
            [5, 2, 0],
        ),
        ByHand(
            "no hypothesis: the first candidate; no candidate that runs: no example; the next turn leaves out what was shown",
            lambda: (
                _inputs(_specified(("2", "5"), ("5", "5"), hypotheses=0))
                + _inputs(_specified(("X", "a", "b"), ("X", "X", "c")))
                + _inputs(_specified(("2", "2", "2", "4"), ("2", "2", "4", "2"), hypotheses=0, turns=2))
            ),
            [2, 2, 4],
        ),
        ByHand(
            "the task's own examples, at random",
            lambda: _inputs(_specified((), (), at_random=True, turns=3)),
            [1, 2, 5],
        ),
        ByHand(
            "two examples are learnt by both roles; in the second round twice as many, from the first weights",
            lambda: [*_learnt(), *_learnt(2), *_learnt(2, anew=False, most_specs=0)],
            [4, 0, 8, 1, 4, 0],
        ),
        ByHand("input, program, input, program", lambda: float(_said() == ["1", "X+2", "2", "X+2"]), 1),
        ByHand(
            "nothing is checked of a speaker",
            lambda: given_stage(RECIPE, "reward")(Episode(speaking("X", ()), ()))["reward"],
            0,
        ),
        Reduction(
            "tasks that are no inductions, in one piece: fine-tuning on their solutions",
            "sft",
            {"update.minibatches": 1},
        ),
    ),
)
