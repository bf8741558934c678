"""ExIt: earlier answers become tasks of their own, and improving on them is what is rewarded.

An answer that was given is a start state: question, answer and the wish for a better one make a new task. Start states
whose attempts differ most come back most often. `exit_diverse` also scales the advantages of answers unlike the others
of their group. Bootstrapping Task Spaces for Self-Improvement, arXiv 2509.04575.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import numpy as np
from torch import Tensor

from etude import seeds
from etude.credit.group import constant, standardised
from etude.fixtures.curricula import ExampleContext, attempts_at, built, example_curriculum
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.models.outputs import Outputs
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.attempts import rewards_of
from etude.settings import Setting, stage
from etude.stages import Context, Credit, Reward
from etude.text.chat_template import Renderer
from etude.types import Array, Episode, Group, Message, Request, Signal, Task

START = "start"  # task meta: the `Start` that a task goes on from
QUALITY = "quality"  # task meta: the quality of that answer; score: an answer's own quality, its last verdict's reward

IMPROVE = "Improve this answer."
DIVERGE = "Improve this answer with a clearly different approach."


@dataclass(frozen=True)
class Start:
    """A start state: an answer int32[n] to `task` of this quality in [0, 1], with `steps` improvements behind it (0: a
    first answer). `score`, S in [0, 1/4]: how much the attempts from here, or in the group it came from, differed."""

    task: Task
    reply: Array
    quality: float
    steps: int
    score: float

    @property
    def key(self) -> int:
        return seeds.key("start", self.task.key, self.steps, self.reply.tobytes())

    def as_task(self, renderer: Renderer, request: str) -> Task:
        """The task of improving on it: question, answer, then `request`. `meta["parent"]` is the key of the task, so
        that what is held out stays held out."""
        said = (Message("assistant", renderer.decode(self.reply)), Message("user", request))
        own = {"parent": self.task.key, START: self, QUALITY: self.quality}
        return replace(self.task, prompt=(*self.task.prompt, *said), meta={**self.task.meta, **own})


class Starts:
    """A buffer of start states. Of the tasks asked for, `start_share` go on from one of them."""

    def __init__(
        self,
        start_share: Annotated[
            float, Setting("share of the tasks that go on from a start state", low=0, high=1)
        ] = 0.5,
        exit_kappa: Annotated[
            float, Setting("kappa, how strongly a high variance is preferred; 0: not at all", low=0)
        ] = 16.0,
        max_starts: Annotated[int, Setting("start states that are kept", low=1)] = 512,
        min_starts: Annotated[int, Setting("start states there must be before any is used", low=1)] = 16,
        diverge_share: Annotated[
            float, Setting("share of those that is asked for another approach", low=0, high=1)
        ] = 0.2,
        improve_request: Annotated[str, Setting("how an improvement is asked for")] = IMPROVE,
        diverge_request: Annotated[str, Setting("how another approach is asked for")] = DIVERGE,
    ) -> None:
        self.start_share, self.kappa = start_share, exit_kappa
        self.max_starts, self.min_starts = max_starts, min_starts
        self.diverge_share, self.improve, self.diverge = diverge_share, improve_request, diverge_request
        self.kept: list[Start] = []

    def next(self, n: int, context: Context) -> list[Request]:
        return [self._request(context.rng("start", context.drawn + i), context) for i in range(n)]

    def _request(self, rng: np.random.Generator, context: Context) -> Request:
        if len(self.kept) < self.min_starts or rng.random() >= self.start_share:
            return Request()
        start = self.kept[rng.choice(len(self.kept), p=self.probabilities())]
        text = self.diverge if rng.random() < self.diverge_share else self.improve
        return Request(
            task=start.as_task(context.policy.renderer, text), why="to improve on an earlier answer"
        )

    def probabilities(self) -> Array:
        """P_i proportional to exp(kappa S_i), for every start state."""
        scores = [start.score for start in self.kept]
        weights = np.exp(self.kappa * (np.array(scores) - max(scores)))
        return weights / weights.sum()

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """Scores anew the start states that were used, and adds one answer of every group under the group's score
        S = var q, the variance of qualities in [0, 1]."""
        step_key = seeds.key(context.seed, "starts", context.step)
        for number, group in enumerate(groups):
            judged = [e for e in group.episodes if e.verdict is not None]
            if not judged:
                continue
            score = float(np.var([_quality(e) for e in judged]))
            parent: Start | None = group.task.meta.get(START)
            if parent is not None:
                key = parent.key
                self.kept = [replace(s, score=score) if s.key == key else s for s in self.kept]
            improvable = [e for e in judged if _quality(e) < 1 and e.sampled.any()]
            if improvable:
                rng = seeds.generator(step_key, number, group.task.key)
                episode = improvable[rng.integers(len(improvable))]
                reply = [s.tokens for s in episode.spans if s.sampled][-1]
                task, steps = (parent.task, parent.steps + 1) if parent else (group.task, 0)
                self._keep(Start(task, reply, _quality(episode), steps, score))

    def _keep(self, new: Start) -> None:
        """Where the buffer is full, `new` replaces the start state of the lowest score, if its own is not lower."""
        if any(s.key == new.key for s in self.kept):
            return
        if len(self.kept) < self.max_starts:
            self.kept.append(new)
            return
        lowest = min(range(len(self.kept)), key=lambda i: self.kept[i].score)
        if new.score >= self.kept[lowest].score:
            self.kept[lowest] = new

    def report(self) -> Mapping[str, float]:
        """How many start states there are, their mean score, and the most improvements behind one."""
        if not self.kept:
            return {"starts": 0.0}
        return {
            "starts": float(len(self.kept)),
            "score": float(np.mean([s.score for s in self.kept])),
            "longest": float(max(s.steps for s in self.kept)),
        }

    def state_dict(self) -> dict[str, Any]:
        return {"kept": list(self.kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = list(state["kept"])


def _quality(episode: Episode) -> float:
    return episode.verdict.reward if episode.verdict else 0.0


def improvement() -> Reward:
    """r = max(0, G(y) - G(y_old)) / (1 - G(y_old)), the share that was gained of what could be (0 where nothing could
    be), for an answer that goes on from y_old; G(y), its quality, for a first answer."""

    def reward(episode: Episode) -> dict[str, float]:
        old, new = episode.task.meta.get(QUALITY), rewards_of(episode)[-1]
        if old is None:
            return {"reward": new, QUALITY: new}
        return {"reward": max(0.0, new - old) / (1 - old) if old < 1 else 0.0, QUALITY: new}

    return reward


def distances(embeddings: Array) -> Array:
    """d_i = |e_i - mean e| / (max_j |e_j - mean e| - min_j |e_j - mean e|), f64[G] of [G, D]; 1 where all are equally
    far from the mean."""
    embeddings = np.asarray(embeddings, np.float64)
    distance = np.linalg.norm(embeddings - embeddings.mean(0), axis=1)
    width = np.ptp(distance)
    return distance / width if width > 1e-5 * distance.max() else np.ones(len(distance))


def diverse() -> Credit:
    """A_i = d_i (r_i - mean r) / (std r + 1e-4); e_i is the mean over the answer of the policy's last hidden states."""

    def credit(groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        hidden = context.rows([constant(e, 1.0) for e in episodes], _hidden, {"hidden"})
        means = iter([_mean(row[e.sampled]) for e, row in zip(episodes, hidden, strict=True)])
        signals = []
        for group in groups:
            advantages = standardised(group.rewards)
            if len(advantages):
                advantages = advantages * distances(np.stack([next(means) for _ in group.episodes]))
            signals += [constant(e, float(a)) for e, a in zip(group.episodes, advantages, strict=True)]
        return signals

    return credit


def _hidden(out: Outputs) -> Tensor:
    assert out.hidden is not None
    return out.hidden


def _mean(rows: Array) -> Array:
    return rows.mean(0) if len(rows) else np.zeros(rows.shape[1])


# ---- recipes and their numbers -----------------------------------------------------------------------------


def _rewarded(new: float, old: float | None) -> list[float]:
    """(reward, quality) of an answer, to a task that goes on from one of quality `old`."""
    (episode,) = attempts_at(("a", 0), [new]).episodes
    meta = {} if old is None else {QUALITY: old}
    scores = built(EXIT, "reward")(replace(episode, task=replace(episode.task, meta=meta)))
    return [scores["reward"], scores[QUALITY]]


def _buffer(*groups: Sequence[float], **settings: Any) -> Starts:
    """The buffer after one step with these qualities of each group."""
    starts: Starts = example_curriculum(EXIT, (), settings)
    made = [attempts_at(("a", 0), qualities, i) for i, qualities in enumerate(groups)]
    starts.observe(made, [], ExampleContext())
    return starts


class _Embedded(ExampleContext):
    """A policy whose last hidden states in episode i are (points[i], 0)."""

    points: Sequence[float] = (1.0, -3.0, 2.0)

    def rows(
        self, signals: Sequence[Signal], read: Any, needs: Iterable[str] = (), policy: Any = None
    ) -> list[Array]:
        return [np.array([[x, 0.0]] * len(s.advantage)) for s, x in zip(signals, self.points, strict=True)]


def _scaled(*rewards: float) -> list[float]:
    """The advantages of exit_diverse over those of GRPO, of answers 1, -3 and 2 along a line."""
    group = attempts_at(("a", 0), rewards)
    plain, mine = (built(r, "credit")([group], _Embedded()) for r in (GRPO, DIVERSE))
    return [float(a.advantage[0] / b.advantage[0]) for a, b in zip(mine, plain, strict=True)]


PAPER = Paper("Bootstrapping Task Spaces for Self-Improvement", "2509.04575", 2025)

DEPARTURES = (
    "GUESS: kappa = 16 (not given): a group of which half is right is drawn exp(16 / 4) = 55 times as often as one that agrees",
    "the KL to the start (0.001 in the paper, whose reference is renewed every 100 steps) is off, so that no reference model is kept; "
    "--set objective.kl_weight=0.001 adds one to a start that stays",
    "guess: a group adds one of its answers, drawn among those that can still be improved (quality below 1)",
    "only answers in words: the prefix of a conversation of several turns is not made a start state",
    "16 start states are enough to begin with, where the paper waits for 128, the tasks of one of its steps",
    "the run's reward is the gain; the score `quality` is the answer's own",
)

EXIT = Recipe(
    name="exit",
    paper=PAPER,
    published_lr=1e-6,
    idea="An answer that was given is a place from which to go on. Half of all tasks show the policy an earlier answer and ask for "
    "a better one, and the reward is what was gained. Answers from which attempts differ most come back most often, so the "
    "policy makes itself a growing space of tasks.",
    equation="P(start i) ~ exp(kappa S_i), S = var of the group's qualities;  r = max(0, G(y) - G(y_old)) / (1 - G(y_old))",
    departures=(
        *DEPARTURES,
        "alone it is trained as GRPO; `topr+exit` and the like take credit and loss from the other",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement)},
    default_base=GRPO,
    needs=("text",),
    claim="Trained on single steps, accuracy after four chained improvements exceeds the first answer's by more than under GRPO.",
    manipulation=(
        Manipulated("an answer is improved twice in a row", r"curriculum\.longest", 2.0, read="max"),
    ),
    examples=(
        ByHand(
            "from a half to 1; from 3/4 to a half; from a half to 3/4; from 1 to 1; a first answer",
            lambda: [_rewarded(*q) for q in ((1, 0.5), (0.5, 0.75), (0.75, 0.5), (1, 1), (0.75, None))],
            [[1, 1], [0, 0.5], [0.5, 0.75], [0, 1], [0.75, 0.75]],
        ),
        ByHand(
            "scores of groups that are half right, a quarter right, all wrong; all right leaves nothing to improve",
            lambda: [s.score for s in _buffer([1, 0], [1, 0, 0, 0], [0, 0], [1, 1]).kept],
            [1 / 4, 3 / 16, 0],
        ),
        ByHand(
            "scores 1/4 and 0, kappa = 4 ln 3",
            lambda: _buffer([1, 0], [0, 0], exit_kappa=4 * np.log(3)).probabilities(),
            [0.75, 0.25],
        ),
        ByHand(
            "two places for scores 1/16, 1/4, 3/16: the lowest goes",
            lambda: [s.score for s in _buffer([0.5, 0], [1, 0], [1, 0, 0, 0], max_starts=2).kept],
            [3 / 16, 1 / 4],
        ),
        Reduction("no start states: GRPO", "grpo", {"curriculum.start_share": 0.0}),
    ),
)

DIVERSE = Recipe(
    name="exit_diverse",
    base=GRPO,
    paper=PAPER,
    published_lr=1e-6,
    idea="ExIt, and among the answers of a group the ones unlike the others count for more. "
    "So the space of start states does not narrow to one way of answering. What is unlike is told by the policy's hidden states.",
    equation="A_i = d_i (r_i - mean r) / (std r + 1e-4);  d_i = |e_i - mean e| / (max_j |e_j - mean e| - min_j |e_j - mean e|)",
    departures=(
        *DEPARTURES,
        "GUESS: e is the policy's own last hidden state averaged over the answer; d = 1 where all are equally far",
    ),
    stages={"curriculum": stage(Starts), "reward": stage(improvement), "credit": stage(diverse)},
    needs=("text",),
    claim="The answers of a group stay more different than under ExIt at no loss of accuracy.",
    manipulation=(
        Manipulated("an answer is improved twice in a row", r"curriculum\.longest", 2.0, read="max"),
    ),
    examples=(ByHand("distances 1, 3, 2 from the mean, width 2", lambda: _scaled(1, 0, 0), [0.5, 1.5, 1]),),
)

RECIPES = [EXIT, DIVERSE]
