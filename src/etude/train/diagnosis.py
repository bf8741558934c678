"""Can a run learn anything from these groups, and if not, why?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.rollout.full import FULL
from etude.types import NOISE, Group


@dataclass(frozen=True)
class Diagnosis:
    """Shares are over episodes (`mixed`, `signal`: over groups)."""

    groups: int
    episodes: int
    pass_rate: float
    reward: float
    truncated: float
    mixed: float
    errors: float
    signal: float  # share of packed tokens on which the objective acts
    cause: str  # "" when there is something to learn
    advice: str
    warning: str = ""  # what is wrong though something can be learned

    @property
    def sentence(self) -> str:
        facts = (
            f"of {self.episodes} attempts at {self.groups} tasks {self.pass_rate:.1%} passed, "
            f"{self.truncated:.0%} were cut off by the length limit, {self.errors:.0%} failed with an error; "
            f"outcomes differed within {self.mixed:.0%} of the groups"
        )
        if not self.episodes:
            facts = f"{self.groups} tasks with given answers; nothing is sampled"
        if self.cause:
            return f"{facts}. Cause: {self.cause}: {self.advice}"
        return f"{facts}. Warning: {self.warning}" if self.warning else facts

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "sentence": self.sentence}


@dataclass(frozen=True)
class Known:
    """What a run knows besides the groups."""

    max_tokens: int
    context: str  # the longest conversation, and what to do about it
    decode: Callable[[Any], str]
    own_reward: bool = False  # the user's function, which may say anything; a recipe's follows the verdicts
    idle: str = ""  # why no update can change the weights
    rejected: str = ""  # which gold answers their own check rejects
    worse: str = ""  # how the policy is worse than it was, and what to do about it


def diagnose(groups: Sequence[Group], signal: float, known: Known) -> Diagnosis:
    """`signal`: the share of packed tokens on which the run's own objective would act."""
    good = [e for g in groups for e in g.episodes]
    failed = sum(len(g.failed) for g in groups)
    n = max(1, len(good))
    passed = sum(e.correct for e in good) / n
    cause, advice = "", ""
    if not good and failed:
        cause, advice = "checker", f"every attempt failed: {_first_error(groups)}"
    elif known.idle:
        cause, advice = "learning rate", known.idle
    elif signal <= 0:
        cause, advice = _cause(groups, passed, known)
    return Diagnosis(
        len(groups),
        len(good) + failed,
        passed,
        sum(e.reward for e in good) / n,
        sum(e.stop == "length" for e in good) / n,
        sum(g.mixed for g in groups) / max(1, len(groups)),
        failed / max(1, failed + len(good)),
        signal,
        cause,
        advice,
        known.rejected,
    )


def _cause(groups: Sequence[Group], passed: float, known: Known) -> tuple[str, str]:
    """Why no token carries signal. What makes a later cause look true comes before it."""
    good = [e for g in groups for e in g.episodes]
    rewards = [e.reward for e in good] or [0.0]
    constant = max(rewards) - min(rewards) <= NOISE
    unlike = any(e.verdict is None or abs(e.reward - e.verdict.reward) > NOISE for e in good)
    if constant and ((known.own_reward and unlike) or 0 < passed < 0.999):
        small = f" (differences up to {NOISE:g} are taken for rounding)"
        return "reward", f"the reward is constant ({rewards[0]:g}){small}; mend the reward function"
    if known.worse:
        return "collapse", known.worse
    if passed >= 0.999:
        return "difficulty", "every attempt passed already; choose harder tasks"
    if any(g.mixed for g in groups):
        return (
            "recipe",
            "attempts differ, and yet the recipe gives no token of them any weight; more tasks (run.preflight, "
            "run.tasks_per_step) may hold what it learns from, which `etude recipes` tells",
        )
    if passed > 0.001:
        return (
            "difficulty",
            "no group had attempts of differing reward; raise run.group_size or choose harder tasks",
        )
    if known.rejected:
        return "checker", f"{known.rejected}; mend the gold answers or their check"
    cut = [e for e in good if e.stop == "length"]
    if len(cut) > 0.5 * len(good):
        if sum(FULL in e.notes for e in cut) > 0.5 * len(cut):
            return "context", f"conversations are cut off (truncated) at {known.context}"
        return "length", f"answers are cut off (truncated) at {known.max_tokens} tokens; raise run.max_tokens"
    if _said_without_form(groups, known.decode):
        return "format", "right answers stand in the text but not in the form that the checker reads"
    return (
        "difficulty",
        "no attempt passed; choose easier tasks, more attempts, or start from a better model",
    )


def _said_without_form(groups: Sequence[Group], decode: Callable[[Any], str]) -> bool:
    """Whether gold answers stand in at least a tenth of the failed replies."""
    seen = found = 0
    for group in groups:
        answer = (group.task.answer or "").strip().lower()
        for episode in group.episodes:
            if answer:
                seen += 1
                found += answer in decode(episode.tokens[episode.sampled]).lower()
    return seen > 0 and found / seen >= 0.1


def _first_error(groups: Sequence[Group]) -> str:
    for group in groups:
        for episode in group.failed:
            if episode.failure:
                return f"{episode.failure.where}: {episode.failure.error}"
    return "unknown"
