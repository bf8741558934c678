"""Router-R1: the policy asks other models, as tools, and a right answer earns more where they cost less.

Zhang et al. (arXiv 2506.09033). Reward: -1 where the format is broken; 0 for a wrong answer; else (1 - alpha) worth + alpha R_cost.
R_cost compares c = sqrt(price of all calls) with what earlier episodes cost:

    R_cost = 1 - clip((c - p5) / (p95 - p5), 0, 1),   p5 and p95 percentiles of the last 1,000 c; 1/2 where they are equal

Credit and objective are PPO's, results are masked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np

from etude.fixtures.called import example_calls
from etude.fixtures.given import GivenContext, given_stage
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.group_rollout import verdict
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tools.kit import CALLS
from etude.types import Episode, Group, Signal

LOW, HIGH = 5, 95  # percentiles
UNKNOWN = 0.5  # R_cost where all episodes cost the same


def cost_of(episode: Episode) -> float:
    """c: the square root of the price of all calls."""
    return float(np.sqrt(sum(call["price"] for call in episode.notes.get(CALLS, ()))))


class CheapAnswers:
    """broken: 1 where a call could not be read or the last reply did not end. cost: c. cheap: R_cost, by the episodes of earlier
    steps. `reward`: `fault`, 0, or (1 - alpha) worth + alpha R_cost."""

    def __init__(
        self,
        alpha: Annotated[
            float, Setting("share of the cost in the reward of a right answer", low=0, high=1)
        ] = 0.6,
        fault: Annotated[float, Setting("reward of a broken format", high=0)] = -1.0,
        whole: Annotated[bool, Setting("a reply that was cut off breaks the format as well")] = True,
        wrong_too: Annotated[bool, Setting("a wrong answer earns alpha R_cost as well")] = False,
        compared_with: Annotated[
            int, Setting("episodes that a cost is compared with", "episodes", low=2)
        ] = 1000,
    ) -> None:
        self.alpha, self.fault, self.whole, self.wrong_too = alpha, fault, whole, wrong_too
        self.costs: deque[float] = deque(maxlen=compared_with)

    def __call__(self, episode: Episode) -> dict[str, float]:
        worth, record = verdict()(episode)["reward"], episode.notes.get(CALLS, ())
        broken = (self.whole and episode.stop != "end") or not all(call["read"] for call in record)
        cheap = self.cheap(cost_of(episode))
        earned = (1 - self.alpha) * worth + self.alpha * cheap * (worth > 0 or self.wrong_too)
        reward = self.fault if broken else earned
        return {"reward": reward, "cost": cost_of(episode), "cheap": cheap, "broken": float(broken)}

    def cheap(self, cost: float) -> float:
        """R_cost."""
        low, high = np.percentile(self.costs, (LOW, HIGH)) if self.costs else (0.0, 0.0)
        return float(1 - np.clip((cost - low) / (high - low), 0, 1)) if high > low else UNKNOWN

    def observe(self, groups: Sequence[Group], signals: Sequence[Signal], context: Context) -> None:
        """What the step's episodes cost is what later ones are compared with."""
        self.costs.extend(cost_of(e) for g in groups for e in g.episodes)

    def state_dict(self) -> dict[str, Any]:
        return {"costs": list(self.costs)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.costs = deque(state["costs"], self.costs.maxlen)


def rewarded(
    price: float, reward: float = 1.0, seen: Sequence[float] = (0.0, 1.0), **how: Any
) -> list[float]:
    """Reward and R_cost of an attempt that called once at `price`, after a step whose episodes' calls had the prices `seen`."""
    settings = {n: how.pop(n) for n in ("alpha", "wrong_too") if n in how}
    scored = given_stage(RECIPE, "reward", **settings)
    earlier = [example_calls(1.0, ("ask", {}), price=p) for p in seen]
    scored.observe([Group(e.task, (e,)) for e in earlier], [], GivenContext())
    found = scored(example_calls(reward, ("ask", {}), price=price, **how))
    return [found["reward"], found["cheap"]]


RECIPE: Recipe = Recipe(
    name="router_r1",
    base=PPO,
    paper=Paper(
        "Router-R1: Teaching LLMs Multi-Round Routing and Aggregation via Reinforcement Learning",
        "2506.09033",
        2025,
    ),
    published_lr=1e-6,
    idea="The policy answers by asking other models, each a tool with a price, and putting together what they say. "
    "A right answer earns more the less was paid for it, compared with what answers usually cost. "
    "A wrong answer earns nothing however cheap it was.",
    equation="r = -1 (broken) | 0 (wrong) | (1 - alpha) worth + alpha (1 - clip((c - p5) / (p95 - p5), 0, 1)),  c = sqrt(sum of prices)",
    departures=(
        "the models are the run's tools, functions with a price a call, which may ask an address; in the paper a fixed pool "
        "with a price a token, asked as <search>NAME: question</search>",
        "an answer's worth is the task's verdict; in the paper exact match",
        "the paper's formula adds alpha R_cost for wrong answers as well; its released code, followed here, does not (reward.wrong_too)",
        "costs are compared with those of earlier steps, so that a reward does not depend on which episode ended first; while there "
        "are none, R_cost is 1/2",
        "the format is that of the model's own calls: all could be read, and the last reply ended",
    ),
    stages={"reward": stage(CheapAnswers)},
    claim="With a larger alpha answers cost less, at a small loss of accuracy.",
    manipulation=(Manipulated("what episodes cost differs over the run", r"score/cost", 0.05, read="range"),),
    examples=(
        ByHand(
            "c of 0 and 1 seen: p5 = 0.05, p95 = 0.95; 1/4 costs c = 1/2, in the middle",
            lambda: rewarded(0.25),
            [0.4 + 0.6 * 0.5, 0.5],
        ),
        ByHand(
            "cheaper than most, and dearer", lambda: [rewarded(0.0), rewarded(4.0)], [[1.0, 1.0], [0.4, 0.0]]
        ),
        ByHand("wrong: nothing", lambda: rewarded(0.0, reward=0.0), [0.0, 1.0]),
        ByHand(
            "wrong, by the paper's formula", lambda: rewarded(0.0, reward=0.0, wrong_too=True), [0.6, 1.0]
        ),
        ByHand("all cost the same", lambda: rewarded(3.0, seen=(1.0, 1.0)), [0.4 + 0.6 * 0.5, 0.5]),
        ByHand("a call that could not be read", lambda: rewarded(0.0, unreadable=1)[0], -1.0),
        ByHand("cut off", lambda: rewarded(0.0, stop="length")[0], -1.0),
        ByHand("alpha 1: cost alone", lambda: rewarded(0.25, alpha=1.0)[0], 0.5),
        Reduction("alpha 0, nothing broken: PPO", "ppo", {"reward.alpha": 0.0, "reward.whole": False}),
    ),
)
