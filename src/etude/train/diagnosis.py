"""Can a run learn anything from these groups, and if not, why?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from etude.types import Group


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

    @property
    def sentence(self) -> str:
        facts = (
            f"of {self.episodes} attempts at {self.groups} tasks {self.pass_rate:.1%} passed, "
            f"{self.truncated:.0%} were cut off by the length limit, {self.errors:.0%} failed with an error; "
            f"outcomes differed within {self.mixed:.0%} of the groups"
        )
        return f"{facts}. Cause: {self.cause}: {self.advice}" if self.cause else facts

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "sentence": self.sentence}


def diagnose(
    groups: Sequence[Group], signal: float, max_tokens: int, decode: Callable[[Any], str]
) -> Diagnosis:
    """`signal`: the share of packed tokens on which the run's own objective would act."""
    good = [e for g in groups for e in g.episodes]
    failed = sum(len(g.failed) for g in groups)
    n = max(1, len(good))
    rewards = [e.reward for e in good]
    passed = sum(e.correct for e in good) / n
    truncated = sum(e.stop == "length" for e in good) / n
    mixed = sum(g.mixed for g in groups) / max(1, len(groups))
    errors = failed / max(1, failed + len(good))
    cause, advice = "", ""
    if not good and failed:
        cause, advice = "checker", f"every attempt failed: {_first_error(groups)}"
    elif signal <= 0:
        cause, advice = _cause(groups, rewards, passed, truncated, max_tokens, decode)
    mean = sum(rewards) / n
    return Diagnosis(
        len(groups), len(good) + failed, passed, mean, truncated, mixed, errors, signal, cause, advice
    )


def _cause(
    groups: Sequence[Group],
    rewards: Sequence[float],
    passed: float,
    truncated: float,
    max_tokens: int,
    decode: Callable[[Any], str],
) -> tuple[str, str]:
    if passed >= 0.999:
        return "difficulty", "every attempt passed already; choose harder tasks"
    if truncated > 0.5 and passed <= 0.001:
        return "length", f"answers are cut off (truncated) at {max_tokens} tokens; raise run.max_tokens"
    if any(e.correct for g in groups for e in g.episodes) and max(rewards) - min(rewards) < 1e-9:
        return (
            "reward",
            f"the reward is constant ({rewards[0]:g}) though outcomes differ; mend the reward function",
        )
    if passed <= 0.001 and _said_without_form(groups, decode):
        return "format", "right answers stand in the text but not in the form that the checker reads"
    if passed <= 0.001:
        return (
            "difficulty",
            "no attempt passed; choose easier tasks, more attempts, or start from a better model",
        )
    return (
        "difficulty",
        "no group had attempts of differing reward; raise run.group_size or choose harder tasks",
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
