"""Tool-Star: a right answer for which several tools were used together earns a little more.

Dong et al. (arXiv 2505.16410). Reward: -1 where the format is broken; else 0 for a wrong answer; else its worth,
and a bonus of 0.1 where at least two tools took part. Credit and objective are GRPO's, results of tools are masked.
"""

from __future__ import annotations

from typing import Annotated, Any

from etude.fixtures.called import example_calls
from etude.fixtures.given import given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.tools.kit import CALLS
from etude.types import Episode


def together(
    bonus: Annotated[
        float, Setting("added to a right answer for which several tools were used", low=0)
    ] = 0.1,
    kinds: Annotated[int, Setting("how many different tools these are", low=1, high=100)] = 2,
    fault: Annotated[float, Setting("reward of a broken format", high=0)] = -1.0,
    whole: Annotated[bool, Setting("a reply that was cut off breaks the format as well")] = True,
) -> Reward:
    """`fault` where a call could not be read or the last reply did not end; else the verdict's reward, plus `bonus` where it is
    above 0 and `kinds` tools gave a result. together: 1 where they did."""

    def reward(episode: Episode) -> dict[str, float]:
        worth, record = verdict()(episode)["reward"], episode.notes.get(CALLS, ())
        several = len({call["name"] for call in record if not call["failed"]}) >= kinds
        broken = (whole and episode.stop != "end") or not all(call["read"] for call in record)
        total = fault if broken else worth + bonus * (worth > 0 and several)
        return {"reward": total, "together": float(several), "broken": float(broken)}

    return reward


def rewarded(reward: float, *calls: str, **how: Any) -> list[float]:
    """Reward, together and broken of an attempt that called these tools."""
    scored = given_stage(RECIPE, "reward")(example_calls(reward, *((name, {}) for name in calls), **how))
    return [scored[name] for name in ("reward", "together", "broken")]


RECIPE: Recipe = Recipe(
    name="tool_star",
    base=GRPO,
    paper=Paper(
        "Tool-Star: Empowering LLM-Brained Multi-Tool Reasoner via Reinforcement Learning", "2505.16410", 2025
    ),
    published_lr=1e-6,
    idea="A model that may search and compute tends to settle on one of the two. "
    "A right answer for which at least two tools were used earns a little more, so that using them together is tried where it helps. "
    "Calls that cannot be read cost more than a wrong answer.",
    equation="r = -1 (broken) | 0 (wrong) | worth + 0.1 [two tools]",
    departures=(
        "an answer's worth is the task's verdict; the paper takes the F1 of its words with the gold answer",
        "the format is that of the model's own calls: all could be read, and the last reply ended; in the paper tags and one \\boxed",
        "the order of the parts is free: any two tools count, in the paper search and python",
        "neither the cold start by imitation nor the DPO on the policy's own pairs that follows: `rft` and `iterative_dpo` do such things",
    ),
    stages={"reward": stage(together)},
    claim="More of the right answers use two tools than without the bonus.",
    manipulation=(Manipulated("some attempts use two tools", r"score/together", 0.02, read="max"),),
    examples=(
        ByHand("right, with two tools", lambda: rewarded(1.0, "search", "python"), [1.1, 1.0, 0.0]),
        ByHand("right, with one of them twice", lambda: rewarded(1.0, "search", "search"), [1.0, 0.0, 0.0]),
        ByHand("wrong, with two", lambda: rewarded(0.0, "search", "python"), [0.0, 1.0, 0.0]),
        ByHand("half right", lambda: rewarded(0.5, "search", "python"), [0.6, 1.0, 0.0]),
        ByHand("right, but a call could not be read", lambda: rewarded(1.0, unreadable=1), [-1.0, 0.0, 1.0]),
        ByHand("cut off", lambda: rewarded(1.0, stop="length"), [-1.0, 0.0, 1.0]),
        Reduction(
            "no bonus, and nothing broken: GRPO",
            "grpo",
            {"reward.bonus": 0.0, "reward.whole": False},
        ),
    ),
)
