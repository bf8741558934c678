"""Satori's restart and explore: attempts also begin in the middle of earlier attempts, right and wrong, with the wish to reflect.

An attempt is cut after one of its last steps, words that open a reflection are put behind it, and the policy goes on from there.
Who mends a wrong beginning earns a bonus, who spoils a right one pays it. What was there before the cut is not trained. Satori:
Reinforcement Learning with Chain-of-Action-Thought Enhances LLM Reasoning via Autoregressive Search, arXiv 2502.02508."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np

from etude import seeds
from etude.fixtures.curricula import built
from etude.fixtures.examples import example_episode
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.rollout.conversation import Conversation
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.probe import Separator, last_turn, step_cuts, tokens_left
from etude.settings import Setting, stage
from etude.stages import GroupRolloutStage, Reward, Rollout
from etude.types import Episode, Task

STATUS = "status"
"""Note of an attempt that goes on from another: 1 where that one was right, -1 where it was wrong."""

REFLECT = "Wait, check that again."
STEPS = 1 << 20  # no limit to the steps that an attempt is cut into

# ---- group rollout: x -> y;  y[:cut] + "Wait ..." -> the rest ------------------------------------------------------


def chosen(right: Sequence[bool], number: int, draw: np.random.Generator) -> list[int]:
    """`number` attempts to go on from, right and wrong ones by turns as far as there are both."""
    piles = [[i for i in draw.permutation(len(right)) if right[i] == kind] for kind in (False, True)]
    found: list[int] = []
    for turn in range(number if len(right) else 0):
        pile = piles[turn % 2] or piles[1 - turn % 2]
        found.append(int(pile[turn // 2 % len(pile)]))
    return found


def restart_and_explore(
    restart_share: Annotated[
        float, Setting("share of a group's attempts that go on from another attempt", low=0, high=0.9)
    ] = 0.5,
    backtrack: Annotated[int, Setting("T, steps at the end of an attempt that may be cut off", low=0)] = 4,
    opening: Annotated[str, Setting("words that open the reflection")] = REFLECT,
    separator: Separator = "\n",
) -> GroupRolloutStage:
    """Attempts; then some that begin with one of those, cut after one of its last T + 1 steps, and with the words `opening`."""

    def continued(rollouts: GroupRollout, before: Episode) -> Rollout:
        async def rollout(task: Task, conversation: Conversation) -> Episode:
            render = conversation.generator.renderer
            ends = [*step_cuts(render.tokenizer, before, separator, STEPS), len(before.tokens) - 1]
            draw = seeds.generator(conversation.key, "cut")
            cut = ends[-1 - int(draw.integers(min(backtrack + 1, len(ends))))]
            begun = rollouts.resume_from(before, cut, conversation.index)
            said = last_turn(begun)
            joint = "" if not said or said.endswith(separator) else separator
            begun.force_prefix(render.tokenizer.encode(f"{joint}{opening}{separator}"))
            await begun.reply(max_tokens=tokens_left(rollouts, before, cut))
            await begun.check(last_turn(begun))
            return begun.done(**{STATUS: 1 if before.correct else -1})

        return rollout

    async def group_rollout(rollouts: GroupRollout) -> list[Episode]:
        number = round(restart_share * rollouts.samples)
        plain = await rollouts.plays(range(rollouts.samples - number))
        fit = [e for e in plain if not e.failure and e.sampled.any()]
        draw = seeds.generator(rollouts.key, "restart")
        again = []
        for i, which in enumerate(chosen([e.correct for e in fit], number, draw)):
            again += await rollouts.play(len(plain) + i, continued(rollouts, fit[which]))
        return [*plain, *again]

    return group_rollout


# ---- reward: R = 1[right] - 1 + b k -----------------------------------------------------------------------------------


def with_bonus(
    reflection_bonus: Annotated[float, Setting("b, for mending, and off for spoiling", low=0)] = 0.5,
    offset: Annotated[float, Setting("added to every reward", low=-1, high=0)] = -1.0,
) -> Reward:
    """R = r + offset + b k, with k = 1 for a right end of a wrong beginning, -1 for a wrong end of a right one, else 0."""

    def reward(episode: Episode) -> dict[str, float]:
        if episode.verdict is None:
            raise ValueError("the rollout ended without a verdict, so there is nothing to reward")
        status = episode.notes.get(STATUS, 0)
        k = (episode.correct and status == -1) - (not episode.correct and status == 1)
        return {"reward": episode.verdict.reward + offset + reflection_bonus * k}

    return reward


# ---- the recipe ------------------------------------------------------------------------------------------------------


def _paid(right: bool, status: int) -> float:
    from dataclasses import replace

    episode = replace(example_episode(float(right)), notes={STATUS: status} if status else {})
    return float(built(RECIPE, "reward")(episode)["reward"])


def _chosen(*right: bool) -> list[float]:
    """Whether those that four attempts go on from were right."""
    return [float(right[i]) for i in chosen(right, 4, np.random.default_rng(0))]


RECIPE = Recipe(
    name="satori",
    base=PPO,
    paper=Paper(
        "Satori: Reinforcement Learning with Chain-of-Action-Thought Enhances LLM Reasoning via Autoregressive Search",
        "2502.02508",
        2025,
    ),
    published_lr=2e-7,
    idea="Half of the attempts begin in the middle of another attempt, right or wrong, at a point where the policy is told to wait and "
    "check. Mending a wrong beginning earns a bonus, spoiling a right one costs it. So the policy learns to look back when it should.",
    equation="y' = (y_<cut, 'Wait', rest);  R = 1[right] - 1 + b (1[wrong to right] - 1[right to wrong]);  PPO on the rest",
    departures=(
        "attempts go on from others of the same group; the paper keeps those of earlier rounds",
        "no outcome reward model is added to the checker's verdict",
        "words open a reflection, where the paper has tokens of its own, taught beforehand on 10k synthetic traces",
        "its rounds of distilling the policy into the base model and training on are left out",
        "GUESS: T = 4; half of the attempts restart, from right and wrong ones by turns",
    ),
    stages={"group_rollout": stage(restart_and_explore), "reward": stage(with_bonus)},
    needs=("text",),
    claim="After a forced reflection on a wrong beginning more ends are right, and after one on a right beginning no fewer.",
    manipulation=(
        Manipulated("a tenth of the restarts end right", f"noted/{STATUS}/correct", 0.1, read="max"),
    ),
    examples=(
        ByHand(
            "attempts from the start: 0 for a right one, -1 for a wrong one",
            lambda: [_paid(True, 0), _paid(False, 0)],
            [0, -1],
        ),
        ByHand("mended, not mended", lambda: [_paid(True, -1), _paid(False, -1)], [0.5, -1]),
        ByHand("kept, spoilt", lambda: [_paid(True, 1), _paid(False, 1)], [0, -1.5]),
        ByHand(
            "of one right and two wrong: by turns, the one twice",
            lambda: _chosen(True, False, False),
            [0, 1, 0, 1],
        ),
        ByHand("where none is right: wrong ones alone", lambda: _chosen(False, False), [0, 0, 0, 0]),
        Reduction(
            "no restarts, no bonus, rewards of 0 and 1: PPO",
            "ppo",
            {"group_rollout.restart_share": 0.0, "reward.reflection_bonus": 0.0, "reward.offset": 0.0},
        ),
    ),
)
