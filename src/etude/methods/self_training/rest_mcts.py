"""ReST-MCTS*: a tree search guided by a value model finds solutions, and what it finds trains both the policy and the value model.

A value says how far a beginning has come on the way to a right answer. The search goes where values are high, looks a few steps ahead,
and stops where one is near 1. When a problem's answer is known, a finished tree tells what each of its beginnings was worth: nobody has to
label steps. The right solutions are imitated, the values are learnt, and the next round searches better. ReST-MCTS*: LLM Self-Training via
Process Reward Guided Tree Search, arXiv 2406.03816; search and values after the released code (THUDM/ReST-MCTS, `MCTS/`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch

from etude.batch import Batch, pack, unpack
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate
from etude.fixtures.given import GivenContext, GivenModel, example_answers, example_loss, given_stage
from etude.fixtures.inference import answered
from etude.methods.imitation.rft import RECIPE as RFT
from etude.methods.search.mcts_star import PAPER, Exploration, Gate, Look, Mix, Rounds, searched
from etude.models.outputs import Outputs
from etude.objective.terms import Objective, Term, TokenLoss, objective, per_token
from etude.recipe import AuxiliaryModel, ByHand, Manipulated, Recipe
from etude.rollout.conversation import Conversation
from etude.search.ledger import per_token as flops_a_token
from etude.search.score import by_judge
from etude.search.session import SEARCH, Answering, Draft, Session
from etude.search.tree import Branch, Depth, Node, StepTokens, Tree, Until
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks.check import Unjudged, judged
from etude.types import Array, Episode, Group, Message, SamplingParams, Signal, Span, Task
from etude.update import Update

VALUE = "value"  # the auxiliary model, its head, and the weight row of what it learns
TARGET = "target"  # extra: the value that a beginning turned out to have

NO_TASK = Task((Message("user", ""),), Unjudged())  # whose beginnings the value model learns

WORTH, TRACES = "worth", "traces"
"""Notes of an answer: for every beginning in its tree that is known to lead anywhere or nowhere its tokens, prompt included, and its
value; and the other right answers of the tree, as episodes, each with the value that the search gave it."""


# ---- the value model -------------------------------------------------------------------------------------------------


def _ended(tokens: Array, stop: int, task: Task) -> Signal:
    """A beginning as the value model reads it: the number stands where the token that ends a reply would be predicted."""
    words = np.array([*tokens, stop], np.int32)
    row = np.zeros(len(words), np.float32)
    row[-1] = 1.0
    return Signal(Episode(task, (Span("assistant", words),)), 0 * row, {VALUE: row})


async def valued(session: Session, drafts: Sequence[Draft]) -> list[float]:
    """The value model's number for each beginning, in [0, 1], charged; a judge's probability of Yes, where there is no such model."""
    if not drafts:
        return []
    if VALUE not in session.models:
        return await by_judge()(session, drafts)
    generator = session.generator(VALUE)
    policy: Any = generator.sampler.policy
    stop = int(generator.renderer.stops[0])
    signals = [_ended(d.line.context, stop, session.task) for d in drafts]
    session.ledger.score(VALUE, flops_a_token(policy), sum(len(s.advantage) for s in signals))
    batch = pack(signals, SamplingParams())
    rows = unpack(policy.score(batch).heads[VALUE], batch, signals)
    return [float(np.clip(row[-1, 0], 0, 1)) for row in rows]


# ---- what the beginnings of a finished tree were worth ----------------------------------------------------------------


def worth(root: Node, right: Sequence[Node]) -> list[tuple[Node, float]]:
    """From the root down, v_0 = 0: v_k = max(0, v_{k-1} + s_k (1 - v_{k-1}) / (m_k + 1)); m_k: the fewest steps from here to a right end,
    of a branch that ended wrong those of its nearest ancestor that reaches one; s_k: 1 where one is reached, else -1. Branches that did
    not end have no value; nothing has, where no end is right."""
    good = {id(n) for n in right}

    def distance(node: Node) -> float:
        here = 0.0 if id(node) in good else math.inf
        return min([here, *(1 + distance(c) for c in node.children)])

    def ended(node: Node) -> bool:
        return node.ended or any(ended(c) for c in node.children)

    found: list[tuple[Node, float]] = []

    def descend(node: Node, value: float, away: float) -> None:
        for child in node.children:
            reached = distance(child)
            if math.isinf(reached) and not ended(child):
                continue
            m = away if math.isinf(reached) else reached
            sign = -1 if math.isinf(reached) else 1
            v = max(0.0, value + sign * (1 - value) / (m + 1))
            found.append((child, v))
            descend(child, v, m)

    if not math.isinf(distance(root)):
        descend(root, 0.0, distance(root))
    return found


@dataclass
class Learnt(Answering):
    """The search as a method of inference. After it has answered a task that can be checked, every end of its tree is checked too, and
    what the beginnings were worth is noted: nothing of that reaches the search."""

    trees: dict[int, Tree] = field(default_factory=dict)

    async def __call__(self, task: Task, conversation: Conversation) -> Episode:
        try:
            episode = await super().__call__(task, conversation)
        finally:
            tree = self.trees.pop(conversation.key, None)
        if tree is None or not judged(task):
            return episode
        ends = [n for n in tree.leaves if n.draft is not None]
        verdicts = [(n, await conversation.check_runner(task, n.draft.text)) for n in ends if n.draft]
        right = [n for n, v in verdicts if v.correct]
        chosen = episode.tokens.tobytes()
        traces = [
            (replace(n.draft.line, task=task, verdicts=[v], index=episode.index).done(), n.score)
            for n, v in verdicts
            if v.correct and n.draft
        ]
        notes = {
            WORTH: [(n.draft.line.context.tolist(), v) for n, v in worth(tree.root, right) if n.draft],
            TRACES: [(e, s) for e, s in traces if e.tokens.tobytes() != chosen],
        }
        return replace(episode, notes={**episode.notes, **notes})


def rest_mcts(
    simulations: Rounds = 8,
    branch: Branch = 3,
    exploration: Exploration = 0.7,
    mix: Mix = 0.5,
    look: Look = 3,
    gate: Gate = 0.9,
    until: Until = "\n",
    step_tokens: StepTokens = 64,
    depth: Depth = 16,
) -> Answering:
    """`searched` with the value model's numbers."""
    trees: dict[int, Tree] = {}

    async def method(session: Session) -> Draft:
        made = Tree(session, valued, until, step_tokens, depth)
        trees[session.key] = made
        return await searched(made, simulations, branch, exploration, mix, look, gate)

    return Learnt(method, trees=trees)


# ---- credit ---------------------------------------------------------------------------------------------------------------


def value_loss() -> Objective:
    """(V - v)^2, a mean over beginnings."""

    def loss(out: Outputs, batch: Batch) -> TokenLoss:
        error = out.heads[VALUE][:, 0] - batch.extras[TARGET]
        return torch.square(error), {"value_error": error.abs()}

    return objective(Term(VALUE, loss, per_token, weight=VALUE), extras={TARGET}, value=1)


@writes(IMITATION)
class RightTraces:
    """Imitation of the different right answers of every tree, at most `max_answers` a task, given ones first; and the value model is
    taught what the beginnings were worth."""

    def __init__(
        self,
        max_answers: Annotated[int, Setting("most answers per task", "answers", low=1)] = 8,
        least_value: Annotated[
            float, Setting("lowest value of the search's at which another right answer counts", low=0, high=1)
        ] = 0.2,
    ) -> None:
        self.most, self.least = max_answers, least_value
        self.last: dict[str, float] = {}

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            given = [e for e in group.episodes if e.correct]
            more = [t for e in group.episodes for t, v in e.notes.get(TRACES, ()) if v >= self.least]
            distinct = {e.tokens[e.sampled].tobytes(): e for e in reversed([*given, *more])}
            kept = list(distinct.values())[::-1][: self.most]
            signals += [imitate(e, e.sampled) for e in kept]
        return signals

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Teaches the value model."""
        stop = int(context.policy.renderer.stops[0])
        lessons = []
        for tokens, v in (w for g in groups for e in g.episodes for w in e.notes.get(WORTH, ())):
            made = _ended(np.array(tokens, np.int32), stop, NO_TASK)
            lessons.append(replace(made, extras={TARGET: np.full(len(made.advantage), v, np.float32)}))
        trees = [e for g in groups for e in g.episodes if SEARCH in e.notes]
        self.last = {"valued": float(len(lessons))}
        if trees:
            self.last["found"] = float(np.mean([e.correct or bool(e.notes.get(TRACES)) for e in trees]))
        if lessons:
            told = context.auxiliary[VALUE].learn(value_loss(), lessons, context.step, context.progress)
            self.last |= {k: float(v) for k, v in (told or {}).items() if k == "value_error"}

    def report(self) -> dict[str, float]:
        """Of the last step: beginnings whose value was learnt, the value model's mean error at them, and the share of the searches that
        met a right answer."""
        return dict(self.last)


# ---- numbers ---------------------------------------------------------------------------------------------------------------


def _chain(*, dead_after: int = -1) -> tuple[Node, list[Node]]:
    """A right solution of three steps; with a step that ends wrong beside step number `dead_after` + 1."""
    root = at = Node(None)
    for step in range(3):
        if step == dead_after:
            at.children.append(Node(None, at, step + 1, ended=True))
        child = Node(None, at, step + 1, ended=step == 2)
        at.children.append(child)
        at = child
    return root, [at]


def _worth(dead_after: int = -1) -> list[float]:
    return [v for _, v in worth(*_chain(dead_after=dead_after))]


def _searched(**settings: Any) -> list[float]:
    """Two steps at a time, nothing ahead: a (1/2) and b (3/4), visited once; then a, which was not, and from it 7 (0.9) and 5 (1/4)."""
    found = answered(
        RECIPE,
        "a\n",
        "b\n",
        "7",
        "5",
        settings={"simulations": 3, "branch": 2, "look": 0, "mix": 0.0, **settings},
        odds=(1, 3, 9, 1 / 3),
    )
    noted = found.episode.notes
    return [
        float(found.text.split()[-1]),
        len(found.asked),
        *(v for _, v in noted[WORTH]),
        len(noted[TRACES]),
    ]


def _learnt(**settings: Any) -> list[float]:
    """Of a right answer 5 with the traces 5 (0.9), 6 (0.8) and 7 (0.1), and a wrong one: the first tokens that are imitated."""
    right, wrong = example_answers((1.0, (5,)), (0.0, (4,))).episodes
    others = example_answers((1.0, (5,)), (1.0, (6,)), (1.0, (7,))).episodes
    traces = list(zip(others, (0.9, 0.8, 0.1), strict=True))
    group = Group(right.task, (replace(right, notes={TRACES: traces}), wrong))
    signals = given_stage(RECIPE, "credit", **settings)([group], GivenContext())
    return [float(s.episode.tokens[-1]) for s in signals]


def _taught() -> list[float]:
    """What the value model learns of two beginnings: where, and towards what."""
    (episode,) = example_answers((1.0, (5,))).episodes
    noted = replace(episode, notes={WORTH: [([1, 5], 0.5), ([1, 5, 6], 1.0)]})
    model = GivenModel()
    context: Any = GivenContext(auxiliary={VALUE: model})
    given_stage(RECIPE, "credit").observe([Group(noted.task, (noted,))], [], context)
    ((_, signals),) = model.lessons
    return [x for s in signals for x in (float(s.weights[VALUE].argmax()), float(s.extras[TARGET][-1]))]


def _squared() -> float:
    """The loss at values 3/4 and 1/2 of beginnings worth 1/2 and 1."""
    made = _ended(np.array([1, 5], np.int32), 0, NO_TASK)
    signals = [replace(made, extras={TARGET: np.full(3, v, np.float32)}) for v in (0.5, 1.0)]
    return example_loss(value_loss(), signals, GivenModel(value=[[0.75], [0.5]]))


RECIPE: Recipe = Recipe(
    name="rest_mcts",
    base=RFT,
    paper=PAPER,
    idea="A tree search that a value model guides looks for solutions. The finished trees tell what each beginning was worth, which trains the "
    "value model, and hold right solutions, which train the policy. Each makes the other's next round better.",
    equation="a = argmax V_a + c sqrt(2 log N / N_a);  V <- (1 - alpha) V + alpha V_ahead;  V = sum N_a V_a / sum N_a;  "
    "v_k = max(0, v_{k-1} + s_k (1 - v_{k-1}) / (m_k + 1));  L_V = (V - v)^2;  L = - mean log pi(y_t), y right",
    stages={
        "rollout": stage(rest_mcts),
        "credit": stage(RightTraces),
        "update": stage(Update, passes=2, minibatches=4),
    },
    auxiliary={VALUE: AuxiliaryModel("copy", lr=1.0, heads={VALUE: 1}, sampled=True)},
    needs=("text",),
    defaults={"group_size": 2},
    departures=(
        "the search as `mcts_star` has it",
        "values are clipped to [0, 1]; the value model starts as the policy with a new head, and is not trained on other data first; where a run's "
        "value model is not at hand, a judge's probability of Yes guides the search",
        "GUESS: policy and value model go on from the last round's weights; right answers of a value of 0.2 or more are learnt beside the one given "
        "(one script of the release filters so)",
        "8 rounds of 3 steps on lines of text, 2 searches a task",
    ),
    claim="At equal tokens the search finds more than best of n, and rounds of it end above ReST-EM.",
    manipulation=(
        Manipulated("a search in twenty meets a right answer", r"credit\.found", 0.05),
        Manipulated("beginnings are valued", r"credit\.valued", 1, read="max"),
    ),
    examples=(
        ByHand("a right chain of three steps", _worth, [1 / 3, 2 / 3, 1]),
        ByHand(
            "a wrong end beside the first step: 0; beside the second 1/3 - (2/3) / 3; beside the third 2/3 - (1/3) / 2",
            lambda: [*_worth(0), *_worth(1), *_worth(2)],
            [0, 1 / 3, 2 / 3, 1, 1 / 3, 1 / 9, 2 / 3, 1, 1 / 3, 2 / 3, 0.5, 1],
        ),
        ByHand(
            "no right end, or none: no values",
            lambda: [len(worth(_chain()[0], [])), len(worth(Node(None, children=[Node(None)]), []))],
            [0, 0],
        ),
        ByHand(
            "b is promising, a was not tried: 7 below it after four replies; worth of a, 7, and 5, which ended wrong: 1/2 - (1/2) / 2",
            _searched,
            [7, 4, 0.5, 1, 0.25, 0],
        ),
        ByHand(
            "5 once, 6; not 7, of a low value; all; one",
            lambda: [*_learnt(), *_learnt(least_value=0.0), *_learnt(max_answers=1)],
            [5, 6, 5, 6, 7, 5],
        ),
        ByHand("at the token behind each beginning", _taught, [2, 0.5, 3, 1.0]),
        ByHand("1/4 and 1/2 squared, halved", _squared, (0.0625 + 0.25) / 2),
    ),
)
