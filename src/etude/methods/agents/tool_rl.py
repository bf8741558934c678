"""ToolRL: a reward for calling the right tools with the right arguments, in parts that can be right one by one.

Qian et al. (arXiv 2504.13958). Reward: R = R_format + R_correct. R_correct compares the calls of an episode with
those that the task's column `calls` holds:

    S = J(names) + sum over gold calls g of max over unused calls of that name [J(parameter names) + # equal values]
    S_max = 1 + sum_g (1 + # parameters of g);   R_correct = 6 S / S_max - 3

J(x, y) = sum min / (|x| + |y| - sum min) over multisets, 1 for equal lists. Credit and objective are GRPO's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from etude.errors import UserError
from etude.fixtures.called import example_calls
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.tools.kit import CALLS
from etude.types import Episode

Call = Mapping[str, Any]
GOLD = "calls"
"""The column of a task that holds the right calls: [{"name": ..., "arguments": {...}}, ...]."""


def overlap(wanted: Sequence[str], made: Sequence[str]) -> float:
    """J: the Jaccard index of two multisets."""
    if list(wanted) == list(made):
        return 1.0
    shared = sum((Counter(wanted) & Counter(made)).values())
    return shared / (len(wanted) + len(made) - shared)


def share_right(gold: Sequence[Call], made: Sequence[Call]) -> float:
    """S / S_max, in [0, 1]."""
    found, most = overlap([c["name"] for c in gold], [c["name"] for c in made]), 1.0
    unused = list(made)
    for right in gold:
        wanted = right["arguments"]
        most += 1 + len(wanted)
        worth = [_worth(wanted, c["arguments"]) if c["name"] == right["name"] else 0.0 for c in unused]
        best = max(worth, default=0.0)
        if best > 0:
            del unused[worth.index(best)]
            found += best
    return found / most


def _worth(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> float:
    equal = sum(name in given and given[name] == value for name, value in wanted.items())
    return overlap(list(wanted), list(given)) + equal


def gold_of(episode: Episode) -> list[Call] | None:
    """The right calls of an episode's task; None where it names none. Raises UserError where the column holds something else."""
    gold = episode.task.meta.get(GOLD)
    if gold is None:
        return None
    right = isinstance(gold, list | tuple) and all(
        isinstance(c, Mapping) and isinstance(c.get("name"), str) and isinstance(c.get("arguments"), Mapping)
        for c in gold
    )
    if not right:
        raise UserError(
            f'the column \'{GOLD}\' holds {gold!r:.60}; it must be a list of {{"name": ..., "arguments": {{...}}}}'
        )
    return list(gold)


class CallReward:
    """format: 1 where every call could be read, the last reply was not cut off, and there are calls just where the task has some.
    correctness: -most to most, by the calls; by the verdict where the task names no calls. `reward` is their sum."""

    def __init__(
        self,
        most: Annotated[float, Setting("reward of right calls; of wrong ones its negative", low=0)] = 3.0,
        format_weight: Annotated[float, Setting("reward of a reply that can be read", low=0)] = 1.0,
        coarse: Annotated[bool, Setting("calls are right as a whole or wrong as a whole")] = False,
    ) -> None:
        self.most, self.format_weight, self.coarse = most, format_weight, coarse

    def __call__(self, episode: Episode) -> dict[str, float]:
        record, gold = episode.notes.get(CALLS, ()), gold_of(episode)
        readable = all(call["read"] for call in record) and episode.stop != "length"
        form = float(readable and (gold is None or bool(gold) == bool(record)))
        right = self.correctness(episode, gold, record, readable)
        return {"reward": self.format_weight * form + right, "format": form, "correctness": right}

    def correctness(
        self, episode: Episode, gold: Sequence[Call] | None, record: Sequence[Call], readable: bool
    ) -> float:
        if gold is None:
            reward = episode.verdict.reward if episode.verdict else 0.0
            return self.most * (2 * reward - 1)
        if not gold:
            return 0.0
        made = [{"name": c["name"], "arguments": dict(c["arguments"])} for c in record]
        if not readable or not made:
            return -self.most
        if made == [{"name": c["name"], "arguments": dict(c["arguments"])} for c in gold]:
            return self.most
        return -self.most if self.coarse else self.most * (2 * share_right(gold, made) - 1)


WEATHER = ("weather", {"city": "Oslo", "day": 3})
CLOCK: tuple[str, Mapping[str, Any]] = ("clock", {})


def rewarded(*calls: tuple[str, Mapping[str, Any]], gold: Any = (WEATHER,), **how: Any) -> list[float]:
    """Reward, format and correctness of an attempt with reward 1 of its own check."""
    settings = {n: how.pop(n) for n in ("most", "format_weight", "coarse") if n in how}
    scored = given_stage(RECIPE, "reward", **settings)(example_calls(1.0, *calls, gold=gold, **how))
    return [scored[name] for name in ("reward", "format", "correctness")]


RECIPE: Recipe = Recipe(
    name="tool_rl",
    base=GRPO,
    paper=Paper("ToolRL: Reward is All Tool Learning Needs", "2504.13958", 2025),
    published_lr=1e-6,
    idea="The tasks hold the calls that are right. A call earns for the tool's name, for each parameter that it gives, and for each "
    "value that is right, so that calls that are nearly right are worth more than none. Calls that can be read earn a little as well.",
    equation="R = R_format + R_correct,  R_correct = 6 S / S_max - 3,  S = J(names) + sum_g max [J(parameters) + # equal values]",
    departures=(
        "calls are read in the model's own syntax, and of all replies of an episode; in the paper they are those of one reply "
        "(--set run.turns=1)",
        "R_format asks that every call can be read, that the reply is whole, and that there are calls just where the task has some; "
        "the paper matches the reply with <think>, <tool_call> and <response>",
        "where a task has no column 'calls', correctness is its verdict on the same scale",
        "of the variants, the coarse reward is here (reward.coarse); those with a bonus for length and with scales that change are not",
    ),
    stages={"reward": stage(CallReward)},
    claim="Calls are right more often than with a reward that is all or nothing.",
    manipulation=(
        Manipulated("attempts differ in how right their calls are", r"score/correctness", 0.1, read="range"),
    ),
    examples=(
        ByHand("right: 1 + 3", lambda: rewarded(WEATHER), [4.0, 1.0, 3.0]),
        ByHand(
            "one of two values: S = 1 + (1 + 1), S_max = 1 + 3",
            lambda: rewarded(("weather", {"city": "Oslo", "day": 4})),
            [1 + 6 * 3 / 4 - 3, 1.0, 6 * 3 / 4 - 3],
        ),
        ByHand(
            "one of two parameters, and one that is not there: J = 1/3, one value",
            lambda: rewarded(("weather", {"city": "Oslo", "wind": 1}))[2],
            6 * (1 + 1 / 3 + 1) / 4 - 3,
        ),
        ByHand(
            "a call too many: J(names) = 1/2",
            lambda: rewarded(WEATHER, CLOCK)[2],
            6 * (1 / 2 + 1 + 2) / 4 - 3,
        ),
        ByHand("another tool: nothing of it is right", lambda: rewarded(CLOCK)[2], -3.0),
        ByHand(
            "two in the other order are all right",
            lambda: rewarded(CLOCK, WEATHER, gold=(WEATHER, CLOCK))[2],
            3.0,
        ),
        ByHand("not called: no format, -3", lambda: rewarded(), [-3.0, 0.0, -3.0]),
        ByHand("called, not to be read", lambda: rewarded(unreadable=1), [-3.0, 0.0, -3.0]),
        ByHand("cut off", lambda: rewarded(WEATHER, stop="length"), [-3.0, 0.0, -3.0]),
        ByHand("nothing to call, nothing called", lambda: rewarded(gold=()), [1.0, 1.0, 0.0]),
        ByHand(
            "no calls known: 3 (2 - 1) by the verdict", lambda: rewarded(CLOCK, gold=None), [4.0, 1.0, 3.0]
        ),
        ByHand(
            "coarse: nearly right is wrong",
            lambda: rewarded(("weather", {"city": "Oslo", "day": 4}), coarse=True)[2],
            -3.0,
        ),
        Reduction(
            "tasks without known calls, and none made: GRPO on the verdict alone, in another unit",
            "grpo",
            {"reward.format_weight": 0.0, "credit.scale": "off", "reward.most": 0.5},
            {"credit.scale": "off"},
        ),
    ),
)
