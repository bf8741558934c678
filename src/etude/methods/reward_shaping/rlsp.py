"""RLSP: exploring is paid for, whether or not it led to the right answer.

Beside right and wrong, an attempt earns more the longer it was, along a curve that flattens, and nothing that names no answer is
worth as much as a wrong one. PPO does the rest. On the Emergence of Thinking in LLMs I: Searching for the Right Intuition,
arXiv 2502.06773; release: GuanghaoYe/Emergence-of-Thinking."""

from dataclasses import replace
from typing import Annotated

from etude.fixtures.examples import example_episode
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.attempts import answer_of
from etude.settings import Setting, stage
from etude.stages import Reward
from etude.tasks.check import Number
from etude.types import Episode, Message, Task


def searching(
    search_price: Annotated[
        float, Setting("c: tokens; an attempt of n tokens loses c / n", "tokens", low=0, high=1e6)
    ] = 8.0,
    shortest: Annotated[
        float, Setting("an attempt that is shorter counts as so long", "tokens", low=1, high=1e6)
    ] = 8.0,
    unanswered: Annotated[float, Setting("reward of an attempt that names no answer", high=0)] = -0.5,
) -> Reward:
    """v - c / max(n, shortest), n the sampled tokens; v the verdict's reward, or `unanswered`. Scores: `searched`, what was
    lost, and `outcome`, v. ValueError where nothing was judged."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        named = episode.correct or answer_of(episode.task, episode.text) is not None
        outcome = episode.verdict.reward if named else unanswered
        lost = search_price / max(shortest, float(episode.sampled.sum()))
        return {"reward": outcome - lost, "outcome": outcome, "searched": -lost}

    return reward


def rewards(*said: tuple[int, str], **settings: float) -> list[float]:
    """Of attempts at a sum that is 7, of so many tokens, that say this."""
    reward = RECIPE.stages["reward"].but(**settings).build("reward")
    task = Task((Message("user", "3+4?"),), Number("7"), answer="7")
    found = []
    for n, text in said:
        verdict = task.check(text)
        episode = replace(
            example_episode(verdict.reward, range(1, n + 1)), task=task, text=text, verdicts=(verdict,)
        )
        found.append(reward(episode)["reward"])
    return found


RECIPE: Recipe = Recipe(
    name="rlsp",
    base=PPO,
    paper=Paper(
        "On the Emergence of Thinking in LLMs I: Searching for the Right Intuition", "2502.06773", 2025
    ),
    published_lr=2e-7,
    idea="Every attempt pays c / n for its n tokens, so that trying longer costs less than guessing at once. "
    "The payment is the same for right and wrong attempts: what is rewarded is the search. "
    "An attempt that never says an answer is worth less than a wrong one.",
    equation="R = v - c / n,  v = 1 if right, 0 if wrong, -1/2 without an answer;  A by GAE, L as PPO",
    departures=(
        "n counts sampled tokens; the release counts a quarter of the characters before the box",
        "c is 8 tokens, for answers of tens of tokens; the release has 1000 for thousands",
        "the effort that a second model grades (0.8 v' + 0.2 e) is not built in",
        "no KL to the start by default (0.05 there), no imitation of reasoning before, and the actor is not frozen for four steps",
    ),
    stages={"reward": stage(searching)},
    claim="Attempts become longer than with c = 0 after as many steps.",
    manipulation=(
        Manipulated("attempts differ in what they pay by a tenth", "score/searched", 0.1, read="range"),
    ),
    examples=(
        ByHand(
            "c = 8: right in 16 tokens, wrong in 16, wrong in 32, no answer in 32, right at once",
            lambda: rewards((16, "7"), (16, "8"), (32, "8"), (32, "seven"), (2, "7")),
            [1 - 0.5, -0.5, -0.25, -0.5 - 0.25, 1 - 1],
        ),
        ByHand(
            "c = 4, and whoever says nothing is only wrong",
            lambda: rewards((16, "7"), (16, "seven"), search_price=4.0, unanswered=0.0),
            [0.75, -0.25],
        ),
        Reduction(
            "without the term PPO, where every attempt names an answer",
            "ppo",
            {"reward.search_price": 0.0, "reward.unanswered": 0.0},
        ),
    ),
)
