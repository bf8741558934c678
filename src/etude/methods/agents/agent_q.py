"""Agent Q: a tree of turns is searched, each turn's value is what came of it and what a critic says of it, and better turns are preferred.

Putta et al. (arXiv 2408.07199), equations 7, 8 and 10 and algorithm 1. A state h is the conversation before a turn.

- At a state K replies are sampled; a critic ranks them, naming the best of those that are left again and again: Qc = (K - 1 - rank) / (K - 1).
- A course goes down from the beginning to argmax Q + c sqrt(log N(h) / (1 + N(h, a))), from the first state that has no replies yet on with
  the policy, to the end; its reward R goes back up: Qm <- (Qm N + R) / (N + 1), N <- N + 1. Q = alpha Qm + (1 - alpha) Qc.
- Of two replies at a state that were both taken and whose Q differ by at least theta, the better is preferred (DPO) on its own tokens. The
  reference is the policy that sampled them: its log-probabilities are kept with the tokens.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from etude import seeds
from etude.channels import writes
from etude.credit.group import laid
from etude.credit.pairs import sampled_pairs
from etude.fixtures.examples import EXAMPLE_TASK
from etude.fixtures.given import GivenContext, given_stage
from etude.fixtures.inference import collected, example_question
from etude.methods.preference.dpo import RECIPE as DPO
from etude.objective.preference import PAIR, DpoBeta, Side, over_pairs, pair_loss
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.writers import WRITERS, Address, Writer
from etude.search.turn_tree import Act, Path, State, TurnTree
from etude.settings import Setting, stage
from etude.stages import Context, Credit
from etude.types import Episode, Group, Message, Signal, Span
from etude.update import Update

MOVES = "moves"
"""Note of a course: of every reply that was chosen from several its state, its number there, its first span and the one behind its last, and Q."""

RANK = (
    "{question}\n\nThe turns before:\n{log}\n\nThe next turn may be one of:\n{actions}\n\nWhat line is most helpful? Say the number of the line and "
    "nothing else."
)

# ---- group rollout ---------------------------------------------------------------------------------------------------


class Searched:
    """Courses, at most as many as the group has attempts, each begun where the tree promises most; fewer where everything was tried. All courses of a
    task meet the same luck. A task without an environment has a single turn."""

    def __init__(
        self,
        proposals: Annotated[
            int, Setting("K, replies sampled at a state; 0: no tree, courses by themselves", low=0, high=64)
        ] = 4,
        exploration: Annotated[float, Setting("c, how much what was tried less counts", low=0)] = 2.0,
        alpha: Annotated[
            float,
            Setting("share of what came of a turn in its value, beside the critic's word", low=0, high=1),
        ] = 0.5,
        critic: Annotated[
            str,
            Setting(
                "who ranks the replies at a state; nobody: values are what came of them",
                choices=("nobody", *WRITERS),
            ),
        ] = "policy",
        address: Address = "",
    ) -> None:
        self.proposals, self.exploration, self.alpha = proposals, exploration, alpha
        self.writer = None if critic == "nobody" else Writer(critic, address, longest=8)
        self.reads = self.writer.reads if self.writer else frozenset()
        self.last: dict[str, float] = {}

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        if not self.proposals:
            return await rollouts.plays(range(rollouts.samples))
        tree = TurnTree(rollouts, self.proposals, self.exploration, self.alpha, self.rank)
        courses = await tree.courses(rollouts.samples)
        return [replace(e, notes={**e.notes, MOVES: self.moves(path)}) for e, path in courses]

    def moves(self, path: Path) -> list[list[float]]:
        return [[s.number, s.acts.index(a), *a.spans, a.value(self.alpha)] for s, a in path]

    async def rank(self, state: State, acts: Sequence[Act]) -> None:
        """Qc of the replies at a state, where there is a critic."""
        left = list(acts) if self.writer else []
        for rank in range(len(left)):
            best = left.pop(await self.best(state, left, rank) if len(left) > 1 else 0)
            best.critic = (len(acts) - 1 - rank) / (len(acts) - 1) if len(acts) > 1 else 1.0

    async def best(self, state: State, left: Sequence[Act], rank: int) -> int:
        """The place of the reply that the critic names; the first where it names none."""
        assert self.writer is not None
        task = state.line.task
        log = "\n".join(m.content for m in state.line.messages[len(task.prompt) :]) or "nothing"
        actions = "\n".join(f"{i}. {a.text}" for i, a in enumerate(left, 1))
        asked = RANK.format(question=task.prompt[-1].content, log=log, actions=actions)
        about = replace(state.line, key=seeds.key(state.line.key, "rank", rank))
        found = re.search(r"\d+", await self.writer.draft(about, (Message("user", asked),)))
        return int(found[0]) - 1 if found and 1 <= int(found[0]) <= len(left) else 0

    def observe(
        self, groups: Sequence[Group], signals: Sequence[Signal], context: Context | None = None
    ) -> None:
        found = [len(pairs_at_states(g, 0.0)) > 0 for g in groups if g.episodes]
        self.last = {"branched": float(np.mean(found))} if found else {}

    def report(self) -> Mapping[str, float]:
        """The share of the last step's tasks in which two replies to one state were both taken."""
        return self.last


# ---- credit ----------------------------------------------------------------------------------------------------------

Taken = tuple[float, Episode, tuple[int, int]]
"""A reply: Q, a course that holds it, and its spans there."""


def pairs_at_states(group: Group, apart: float) -> list[tuple[Taken, Taken]]:
    """(better, worse), two replies to one state that were both taken and whose Q differ by at least `apart`, and at all."""
    states: dict[int, dict[int, Taken]] = {}
    for episode in group.episodes:
        for state, number, first, end, value in episode.notes.get(MOVES, ()):
            states.setdefault(int(state), {}).setdefault(
                int(number), (value, episode, (int(first), int(end)))
            )
    both = [pair for acts in states.values() for pair in combinations(acts.values(), 2)]
    ordered = [(a, b) if a[0] > b[0] else (b, a) for a, b in both]
    return [(a, b) for a, b in ordered if a[0] > b[0] and a[0] - b[0] >= apart]


@writes("policy", extras=(PAIR,))
def better_turns(
    apart: Annotated[float, Setting("theta, least difference in value of a pair", low=0, high=1)] = 0.2,
    most_pairs: Annotated[
        int, Setting("pairs of a task at most, those furthest apart", low=1, high=512)
    ] = 64,
) -> Credit:
    """+1 on the tokens of the better reply to a state, -1 on those of the worse one. Of courses without a tree the best and the worst."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        signals = []
        for group in groups:
            if not any(MOVES in e.notes for e in group.episodes):
                signals += sampled_pairs(group, context, 1, max(apart, 1e-6))
            found = sorted(pairs_at_states(group, apart), key=lambda pair: pair[1][0] - pair[0][0])
            for number, (better, worse) in enumerate(found[:most_pairs], 1):
                both = [_side(better, 1.0, number), _side(worse, -1.0, number)]
                signals += both if all(s.advantage.any() for s in both) else []
        return signals

    return credit


def _side(side: Taken, sign: float, number: int) -> Signal:
    _, episode, (first, end) = side
    spans = episode.spans[:end]
    begin = sum(len(s) for s in spans[:first])
    turn = replace(episode, spans=spans)
    on = turn.sampled & (np.arange(len(turn.tokens)) >= begin)
    mark = np.full(len(on), number, np.float32)
    return Signal(turn, laid(on, sign), {"policy": on.astype(np.float32)}, {PAIR: mark})


# ---- objective -------------------------------------------------------------------------------------------------------


def stored_dpo(
    dpo_beta: DpoBeta = 0.1,
    stored_reference: Annotated[
        bool, Setting("the reference is the policy that sampled; else the start")
    ] = True,
) -> Objective:
    """-log sigmoid(beta (d+ - d-)), d = log pi - log pi_old over a reply's tokens; mean over pairs. Each reply of a pair carries half."""

    def loss(better: Side, worse: Side) -> Tensor:
        return pair_loss(better.over_reference - worse.over_reference, dpo_beta)

    return over_pairs(loss, stored=stored_reference)


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _acts(*values: tuple[float | None, int, float]) -> State:
    """A state with replies of which the critic's word, N and the sum of rewards are given."""
    line: Any = None
    return State(0, line, [Act(line, str(i), (0, 0), c, n, r) for i, (c, n, r) in enumerate(values)])


def _searched(*said: str, samples: int, **settings: Any) -> list[list[float]]:
    """Of every course its reward, the number of its reply and Q."""
    named = {f"group_rollout.{k}": v for k, v in settings.items()}
    made = collected(RECIPE, said, None, named, samples, example_question())
    return [[e.reward, e.notes[MOVES][0][1], e.notes[MOVES][0][4]] for e in made]


def _course(reward: float, *moves: Sequence[float]) -> Episode:
    """A course of two replies, of two tokens and of one, after prompts of one."""
    parts = (("user", 1), ("assistant", 2), ("user", 1), ("assistant", 1))
    spans = [
        Span(
            role,
            np.ones(n, np.int32),
            role == "assistant",
            -np.ones(n, np.float32) if role == "assistant" else None,
        )
        for role, n in parts
    ]
    return Episode(
        EXAMPLE_TASK, tuple(spans), scores={"reward": reward}, notes={MOVES: [list(m) for m in moves]}
    )


def _preferred(*courses: Episode, **settings: Any) -> list[list[float]]:
    """Of each signal: its tokens, the advantage of each token, and the number of its pair."""
    signals = given_stage(RECIPE, "credit", **settings)([Group(EXAMPLE_TASK, courses)], GivenContext())
    return [[*s.advantage.tolist(), float(s.extras[PAIR][0])] for s in signals]


FIRST = [
    _course(1.0, (0, 0, 1, 2, 0.75), (1, 0, 3, 4, 1.0)),
    _course(0.0, (0, 0, 1, 2, 0.75), (1, 1, 3, 4, 0.25)),
]
OTHER = _course(0.0, (0, 1, 1, 2, 0.6))
W = 1 / (1 + 4**0.1)

RECIPE: Recipe = Recipe(
    name="agent_q",
    base=DPO,
    paper=Paper("Agent Q: Advanced Reasoning and Learning for Autonomous AI Agents", "2408.07199", 2024),
    idea="In a task of many turns one reward at the end says little about each of them. So courses of action are searched as a tree: where they part, it "
    "shows which reply led to more. What the policy itself says as a critic counts as well, since few replies can be tried. Better replies are preferred where "
    "they were given.",
    equation="Q = alpha Qm + (1 - alpha) Qc;  L = - mean log sigmoid(beta [log pi/pi_old(a+ | h) - log pi/pi_old(a- | h)]),  Q(h, a+) - Q(h, a-) >= theta",
    departures=(
        "K, c, alpha, theta and beta are not given in the paper: GUESS 4, 2, 1/2, 0.2 and 0.1; a rank becomes a number in [0, 1] evenly",
        "a state gets its K replies when it is met for the second time; the first time the course goes on from it with the policy alone",
        "replies whose every end is known are not taken again, and the tree ends where there is nothing else",
        "the critic is the policy as it is now, its start, a second model or a remote one; in the paper the base model",
        "a reply is whatever the policy says in a turn, thought and action together; the paper's parts (plan, thought, command, explanation) are a matter "
        "of the prompt",
        "each step is an iteration of algorithm 1, GUESS: of two passes; trees are new, and no replay buffer is kept; the paper's warm start by imitation is `rft`",
        "an attempt at test time is a plain one; the paper searches there as well",
    ),
    stages={
        "group_rollout": stage(Searched),
        "credit": stage(better_turns),
        "objective": stage(stored_dpo),
        "update": stage(Update, passes=2),
    },
    claim="In worlds of many turns replies that are preferred where they were given succeed more often than whole courses that are preferred.",
    manipulation=(Manipulated("in a quarter of the tasks courses part", r"group_rollout\.branched", 0.25),),
    examples=(
        ByHand(
            "Q at alpha 1/2: (3/4 + 1) / 2; untried 0 + 1/4; without a critic 1/2",
            lambda: [a.value(0.5) for a in _acts((1.0, 4, 3.0), (0.5, 0, 0.0), (None, 2, 1.0)).acts],
            [0.875, 0.25, 0.5],
        ),
        ByHand(
            "chosen: of Q 0.875 and 0.25 after four visits, c = 0: the first; c = 1: 0.25 + sqrt(log 4) = 1.43 > 0.875 + sqrt(log 4 / 5) = 1.40",
            lambda: [float(_acts((1.0, 4, 3.0), (0.5, 0, 0.0)).chosen(0.5, c).text) for c in (0.0, 1.0)],
            [0, 1],
        ),
        ByHand(
            "three replies, two of them different; the critic says 2: 7 has Qc 1, 8 has 0; 7 is taken first: 1/2 + 1/2; 8 has 0; then all is known",
            lambda: _searched("8", "7", "8", "2", samples=4, proposals=3),
            [[1, 1, 1], [0, 0, 0]],
        ),
        ByHand(
            "no critic: Q is what came of it",
            lambda: _searched("8", "7", samples=2, proposals=2, critic="nobody"),
            [[0, 0, 0], [1, 1, 1]],
        ),
        ByHand(
            "no tree: courses by themselves",
            lambda: len(collected(RECIPE, ["7", "8"], None, {"group_rollout.proposals": 0}, 2)),
            2,
        ),
        ByHand(
            "at the second state 1 against 1/4, on its one token; at the first 0.75 against 0.6 is too near",
            lambda: _preferred(*FIRST, OTHER),
            [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, -1, 1]],
        ),
        ByHand(
            "theta 0.1: that too, on its two tokens",
            lambda: _preferred(*FIRST, OTHER, apart=0.1)[2:],
            [[0, 1, 1, 2], [0, -1, -1, 2]],
        ),
        ByHand("one pair at most", lambda: len(_preferred(*FIRST, OTHER, apart=0.1, most_pairs=1)), 2),
        OffPolicy(
            "the better reply twice as likely as when sampled, the worse half: margin log 4, beta 0.1",
            ratio=(2.0, 1.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            extras={PAIR: (1, 1, 1)},
            loss=math.log1p(math.exp(-0.1 * math.log(4))),
            gradient=(-0.1 * W, -0.1 * W, 0.1 * W),
        ),
        Reduction(
            "no tree, against the start: DPO of whole courses",
            "dpo",
            {"group_rollout.proposals": 0, "objective.stored_reference": False, "credit.apart": 0.0},
        ),
    ),
)
