"""What passes between the stages. Shapes: `B` sequences, `T` tokens of one sequence, `N` tokens of a packed batch,
`G` episodes of one task. Everything here is frozen; a stage is a function between two of these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from etude.errors import UserError

Array = np.ndarray
NOISE = 1e-6
"""Rewards that differ by less are equal: rounding is no signal."""


@dataclass(frozen=True)
class Message:
    role: str  # "system" | "user" | "assistant" | "tool": what a call gave
    content: str


@dataclass(frozen=True)
class Verdict:
    """What a checker says of an answer: pass or fail. The third outcome, error, is an exception: it is
    caught at one boundary, leaves its group and never becomes a number."""

    reward: float  # in [0, 1]
    correct: bool
    feedback: str = ""  # what the environment says back; may be empty

    def __post_init__(self) -> None:
        if not 0.0 <= self.reward <= 1.0:
            raise ValueError(f"a verdict's reward lies in [0, 1]; got {self.reward}")


Check = Callable[[str], Verdict]
"""Judges the text of an answer. Picklable. May raise: that is an error, not a zero."""


class Environment(Protocol):
    """An environment of several turns. `Task.environment(seed)` makes it anew for every attempt (what others call `reset`); the
    verdict says that it is over (`done`) and how it went (`score`). `rollout.turns` calls it: both methods may be `async def`, and
    a class that waits for something says `blocking = True`, so that other episodes go on meanwhile.

    It may also have `solve() -> [reply]`, replies that win from the beginning (demonstrations, self-tests), `actions() -> [reply]`,
    what could be done now, `expert() -> reply`, what is best now (scripted players: `evaluate.players`), and `close()`, which is
    called when its episode is over.

    It may offer `tools`, a list of typed functions (its own methods, say), which the policy calls as it calls other tools; `over` is
    True from the call on that ends the episode, and `act` then gives the verdict. `longest`: how many calls it allows, on top of
    run.turns and run.tool_calls. `as_call(reply)`: the call (`text.tool_calls.Call`) that stands for a reply of `solve`, for
    demonstrations; None where none does."""

    def observe(self) -> str:
        """The text that the policy sees first."""
        ...

    def act(self, text: str) -> tuple[str, Verdict | None]:
        """The next observation after the policy's reply, and the verdict once the episode is over."""
        ...


@dataclass(frozen=True)
class Task:
    """One problem. `prompt` may be given as text, which becomes one message of the user. `key` is a hash of the
    content: two tasks that ask the same are the same task."""

    prompt: tuple[Message, ...]
    check: Check = field(compare=False)
    kind: str = "task"  # the category that a curriculum may choose
    difficulty: float = 0.0  # the source's own level; larger is harder
    answer: str | None = None  # a gold answer, which `check` accepts
    reference: str | None = None  # a worked solution: a demonstration to imitate
    hints: tuple[str, ...] = ()  # from vague to telling
    # (seed) -> Environment; picklable. `seed`, an integer that differs by attempt, decides whatever is random.
    environment: Callable[..., Environment] | None = field(default=None, compare=False)
    meta: Mapping[str, Any] = field(default_factory=dict, compare=False)  # every further column

    def __post_init__(self) -> None:
        given: Any = self.prompt
        if isinstance(given, str):
            object.__setattr__(self, "prompt", (Message("user", given),))
        elif isinstance(given, list | tuple) and all(isinstance(m, Message) for m in given):
            object.__setattr__(self, "prompt", tuple(given))
        else:
            raise UserError(f"Task.prompt is {given!r:.60}; it must be text, or a sequence of Messages")
        if not callable(self.check):
            raise UserError(f"Task.check is {self.check!r:.60}; it must be a function of the answer's text")

    @property
    def key(self) -> str:
        content = [[m.role, m.content] for m in self.prompt]
        text = json.dumps([self.kind, content, self.answer, self.meta.get("environment_key")])
        return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


@dataclass(frozen=True)
class Request:
    """What a curriculum asks for: a task of some kind and level (or this very task), `samples` times."""

    kind: str | None = None  # None: the task source's own mixture
    difficulty: float | None = None
    samples: int | None = None  # None: run.group_size
    task: Task | None = None
    purpose: str = ""  # what the request is for, read by the method that made it
    why: str = ""  # the same for people: shown, never read by code


@dataclass(frozen=True)
class SamplingParams:
    """How a policy is sampled. Part of the policy: log-probabilities are taken under these settings,
    by the same function (`models.distribution.log_softmax`), in the sampler and in the trainer."""

    temperature: float = 1.0  # > 0; greedy is its own flag
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    greedy: bool = False
    max_tokens: int = 64  # per reply
    stop: tuple[
        str, ...
    ] = ()  # texts that end a reply; what was sampled of them stays, its text ends before them


@dataclass(frozen=True)
class Span:
    """A run of tokens by one speaker. `sampled` tokens carry the log-probability under the policy that
    sampled them, temperature included."""

    role: str
    tokens: Array  # int32[n]
    sampled: bool = False
    logp: Array | None = None  # float32[n] where sampled
    hidden: bool = False  # there when sampling, absent when training (a prompt with a hint)
    unseen: bool = False  # there when training, absent when sampling (the same prompt without it)
    restart: bool = False  # the template rewrote history here: a new sequence of the same episode
    tag: str = ""  # what the span is to its rollout: "attempt", "reflection", ...
    version: int = -1  # of the weights that sampled it

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Failure:
    """Why an episode has no verdict. `where`: "check" | "environment" | "rollout" | "reward" | "sampler"."""

    where: str
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Episode:
    """One conversation about one task, as tokens. Text is for people, checkers and rewards, never for training."""

    task: Task
    spans: tuple[Span, ...]
    player: str = "policy"
    index: int = 0  # sample number within its group
    verdicts: tuple[Verdict, ...] = ()  # in the order given, one per checked attempt
    scores: Mapping[str, float] = field(default_factory=dict)  # written by the reward stage
    stop: str = ""  # "end" | "length" | "turns" | "error"
    policy_version: int = 0
    failure: Failure | None = None
    notes: Mapping[str, Any] = field(
        default_factory=dict
    )  # facts that a rollout leaves for its method's credit
    text: str = ""  # the last reply

    @property
    def demonstration(self) -> bool:
        """Whether nothing of this was sampled: the task's own solution, laid out as an episode."""
        return self.player == "demonstration"

    @property
    def tokens(self) -> Array:  # int32[T]
        return _join([s.tokens for s in self.spans], np.int32)

    @property
    def sampled(self) -> Array:  # bool[T]
        return _join([np.full(len(s), s.sampled) for s in self.spans], np.bool_)

    @property
    def logp(self) -> Array:  # float32[T]; 0 where nothing was sampled
        zero = [s.logp if s.logp is not None else np.zeros(len(s)) for s in self.spans]
        return _join(zero, np.float32)

    @property
    def verdict(self) -> Verdict | None:
        return self.verdicts[-1] if self.verdicts else None

    @property
    def correct(self) -> bool:
        return bool(self.verdicts and self.verdicts[-1].correct)

    @property
    def reward(self) -> float:
        """The score that credit reads. Raises KeyError before the reward stage has run."""
        return self.scores["reward"]

    def with_scores(self, scores: Mapping[str, float]) -> Episode:
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True)
class Group:
    """The episodes of one task: the unit of credit and of curricula. Failed episodes are kept apart, and so are
    demonstrations, which no baseline and no metric may count as attempts."""

    task: Task
    episodes: tuple[Episode, ...]
    request: Request = field(default_factory=Request)
    failed: tuple[Episode, ...] = ()
    demonstrations: tuple[Episode, ...] = ()

    @property
    def rewards(self) -> Array:  # float64[G]
        return np.array([e.reward for e in self.episodes])

    @property
    def mixed(self) -> bool:
        """Whether the outcomes differ, that is, whether a group baseline leaves any signal."""
        rewards = self.rewards
        return len(rewards) > 1 and float(np.ptp(rewards)) > NOISE


@dataclass(frozen=True)
class Signal:
    """The credit of one episode's tokens. `weights[name]` says how strongly the loss term `name` acts on each
    token (0: not at all); a token's loss is weight x term. Arrays are aligned with `episode.tokens`."""

    episode: Episode
    advantage: Array  # float32[T]
    weights: Mapping[str, Array] = field(
        default_factory=dict
    )  # float32[T] each; default: {"policy": sampled}
    extras: Mapping[str, Array] = field(default_factory=dict)  # float32[T]: returns, values, references, ...

    def __post_init__(self) -> None:
        if not self.weights:
            object.__setattr__(self, "weights", {"policy": self.episode.sampled.astype(np.float32)})
        length = sum(len(s) for s in self.episode.spans)
        for name, row in {"advantage": self.advantage, **self.weights, **self.extras}.items():
            if len(row) != length:
                raise ValueError(f"signal row '{name}' has {len(row)} entries for {length} tokens")


def _join(parts: Sequence[Any], dtype: Any) -> Array:
    if not parts:
        return np.zeros(0, dtype)
    return np.concatenate([np.asarray(p, dtype) for p in parts])
