"""SPEAR: many turns are praised at first; later the policy imitates its own best episodes, if they still are better than usual.

Qin et al. (arXiv 2509.22601). t counts steps.

- Reward R = r + mu(t) min(1, 0.1 turns), mu(t) = 1/2 (1 + cos(pi t / T_d)) until T_d, then 0; A = R - mean R.
- Filter: attempts that were cut off or repeat themselves are left out; of the groups the three quarters stay whose rewards
  differ most.
- Buffer: attempts with A > 0 with the log-probabilities that they were sampled with, for five steps. Once it holds more than
  1.5 times its size, A' = R - median of the last group means; those with A' >= 0 stay, a random power of two of them, at most
  its size, is trained on beside the fresh ones, weighted by gamma(t) = 1/2 (1 - cos(pi t / T_w)) until T_w, then 1; it begins anew.
- Objective: PPO's clip (0.2, 0.28), a sum over tokens divided by a constant. Of the replayed tokens whose covariance
  (A' - mean A')(log pi - mean log pi) lies between two bounds, as many as 2% of all are left out by chance.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from math import ceil, cos, pi
from typing import Annotated, Any

import numpy as np

from etude.channels import writes
from etude.credit.group import centred, constant
from etude.fixtures.examples import example_episode, example_group
from etude.fixtures.given import GivenContext, GivenModel, example_answers, given_stage
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
from etude.objective.policy import High, Length, Low, clipped
from etude.objective.terms import Objective, averaged, per_constant
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Episode, Group, Signal

REPLAYED = "replayed"
"""The weight row of what is imitated."""

GRAM, OFTEN = 20, 10  # so many tokens in a row, so many times: the episode repeats itself
BEGIN = 1.5  # the buffer is used once it holds so many times its size


def turn_factor(step: float, length: float) -> float:
    """mu(t): from 1 down to 0 within `length` steps."""
    return 0.5 * (1 + cos(pi * step / length)) if step < length else 0.0


def replay_factor(step: float, length: float) -> float:
    """gamma(t): from 0 up to 1 within `length` steps."""
    return 0.5 * (1 - cos(pi * step / length)) if step < length else 1.0


def repeats_itself(episode: Episode) -> bool:
    """Whether `GRAM` tokens in a row occur `OFTEN` times."""
    tokens = episode.tokens[episode.sampled].tolist()
    grams = Counter(tuple(tokens[i : i + GRAM]) for i in range(len(tokens) - GRAM + 1))
    return max(grams.values(), default=0) >= OFTEN


class Sound:
    """Attempts that ended and do not repeat themselves; of the groups the share whose rewards differ most."""

    redraws = False

    def __init__(
        self,
        kept_groups: Annotated[
            float, Setting("share of the groups that is trained on", low=0.01, high=1)
        ] = 0.75,
        sound_only: Annotated[
            bool, Setting("attempts that were cut off or repeat themselves are left out")
        ] = True,
    ) -> None:
        self.kept_groups, self.sound_only = kept_groups, sound_only

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Group]:
        full = [self._cleaned(g) for g in groups if g.episodes]
        by_spread = sorted(range(len(full)), key=lambda i: -float(full[i].rewards.std()))
        return [full[i] for i in sorted(by_spread[: ceil(self.kept_groups * len(full))])]

    def _cleaned(self, group: Group) -> Group:
        """The group without what is unsound; whole where fewer than two attempts would be left to compare."""
        sound = [e for e in group.episodes if e.stop != "length" and not repeats_itself(e)]
        return replace(group, episodes=tuple(sound)) if self.sound_only and len(sound) > 1 else group


def choosable(advantage: Array, logp: Array, low: float, high: float) -> Array:
    """bool[N]: tokens whose covariance (A - mean A)(log pi - mean log pi) lies between the bounds."""
    covariance = (advantage - advantage.mean()) * (logp - logp.mean())
    found: Array = (covariance > low) & (covariance < high)
    return found


@writes("policy", REPLAYED)
class OwnBest:
    """A = R - mean R for the fresh attempts, and A' for those of the buffer that are replayed."""

    def __init__(
        self,
        turn_weight: Annotated[
            float, Setting("weight of the reward for turns at the first step", low=0)
        ] = 1.0,
        turn_steps: Annotated[
            float, Setting("T_d: steps until turns are no longer praised", "steps", low=1)
        ] = 200,
        buffer_episodes: Annotated[int, Setting("most episodes replayed at once", "episodes", low=1)] = 64,
        buffer_steps: Annotated[int, Setting("steps for which an episode stays", "steps", low=1)] = 5,
        replay_weight: Annotated[float, Setting("weight of what is replayed, in the end", low=0)] = 1.0,
        replay_steps: Annotated[float, Setting("T_w: steps until it has that weight", "steps", low=1)] = 100,
        usual: Annotated[int, Setting("group means of which the median is taken", low=1)] = 10240,
        cut_share: Annotated[
            float, Setting("of all replayed tokens, left out by covariance", low=0, high=1)
        ] = 0.02,
        cut_low: Annotated[float, Setting("least covariance of what may be left out")] = 2.0,
        cut_high: Annotated[float, Setting("most covariance of what may be left out")] = 60.0,
    ) -> None:
        self.turn_weight, self.turn_steps = turn_weight, turn_steps
        self.size, self.age = buffer_episodes, buffer_steps
        self.weight, self.replay_steps = replay_weight, replay_steps
        self.cut_share, self.cut_low, self.cut_high = cut_share, cut_low, cut_high
        self.means: deque[float] = deque(maxlen=usual)
        self.held: list[
            tuple[int, float, Episode]
        ] = []  # (step, R, an attempt that was better than its group)
        self.replayed = 0  # episodes, in the last step

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        praise = self.turn_weight * turn_factor(context.step, self.turn_steps)
        self.held = [kept for kept in self.held if kept[0] > context.step - self.age]
        signals = []
        for group in groups:
            turns = np.array([sum(s.sampled for s in e.spans) for e in group.episodes])
            rewards = group.rewards + praise * np.minimum(1.0, 0.1 * turns)
            self.means.append(float(rewards.mean()))
            for episode, total, advantage in zip(group.episodes, rewards, centred(rewards), strict=True):
                signals.append(constant(episode, float(advantage)))
                if advantage > 0:
                    self.held.append((context.step, float(total), episode))
        return signals + self._replay(context)

    def _replay(self, context: Context) -> list[Signal]:
        self.replayed = 0
        if len(self.held) <= BEGIN * self.size:
            return []
        median = float(np.median(self.means))
        better = [(total - median, episode) for _, total, episode in self.held if total >= median]
        self.held = []
        number = 1 << (min(self.size, len(better)).bit_length() - 1) if better else 0
        picks = sorted(context.rng("own best").choice(len(better), number, replace=False)) if number else []
        chosen = [constant(better[i][1], better[i][0]) for i in picks]
        factor = self.weight * replay_factor(context.step, self.replay_steps)
        self.replayed = len(chosen) if factor else 0
        if not self.replayed:
            return []
        return [
            replace(signal, weights={REPLAYED: (factor * row).astype(np.float32)})
            for signal, row in zip(chosen, self._kept(chosen, context), strict=True)
        ]

    def _kept(self, signals: Sequence[Signal], context: Context) -> list[Array]:
        """bool[T] each: sampled tokens without those that are left out."""
        masks = [s.episode.sampled.copy() for s in signals]
        logp = np.concatenate(
            [row[m] for row, m in zip(context.rows(signals, lambda o: o.logp), masks, strict=True)]
        )
        advantage = np.concatenate([s.advantage[m] for s, m in zip(signals, masks, strict=True)])
        may = np.flatnonzero(choosable(advantage, logp, self.cut_low, self.cut_high))
        number = min(len(may), int(self.cut_share * len(logp)))
        kept = np.ones(len(logp), np.bool_)
        kept[context.rng("covariance").choice(may, number, replace=False)] = False
        begin = 0
        for mask in masks:
            n = int(mask.sum())
            mask[mask] = kept[begin : begin + n]
            begin += n
        return masks

    def report(self) -> dict[str, float]:
        return {"replayed": float(self.replayed), "held": float(len(self.held))}

    def state_dict(self) -> dict[str, Any]:
        return {"means": list(self.means), "held": list(self.held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.means = deque(state["means"], self.means.maxlen)
        self.held = list(state["held"])


def fresh_and_replayed(
    clip_low: Low = 0.2, clip_high: High = 0.28, length_divisor: Length = 64.0
) -> Objective:
    """The clipped surrogate on fresh and on replayed tokens, each a sum over its episodes and tokens / (episodes x length_divisor)."""
    fresh = averaged(clipped(clip_low, clip_high), per_constant(length_divisor))
    (term,) = fresh.terms
    return fresh + replace(fresh, terms=(replace(term, name=REPLAYED, weight=REPLAYED),))


def credited(*steps: tuple[int, Sequence[float]], **settings: Any) -> list[list[float]]:
    """Of the last of several steps (t, rewards of a group): [advantage, weight of replay] of every signal. Attempts are two tokens
    long, and the policy says -1 a token."""
    credit = given_stage(RECIPE, "credit", turn_weight=0.0, buffer_episodes=2, replay_steps=2, **settings)
    for step, rewards in steps:
        context = GivenContext(GivenModel(-1.0), step=step)
        signals = credit([example_answers(*((r, (1, 2)) for r in rewards))], context)
    found = []
    for s in signals:
        row = s.weights.get(REPLAYED, np.zeros(len(s.advantage)))
        found.append([float(s.advantage[-1]), float(row[-1])])
    return found


def with_turns() -> list[float]:
    """Advantages of two attempts of one and of three turns, both right, at the first step."""
    long = example_episode(1.0)
    long = replace(long, index=1, spans=long.spans * 3)
    group = replace(example_group([1.0]), episodes=(example_episode(1.0), long))
    signals = given_stage(RECIPE, "credit")([group], GivenContext(step=0))
    return [float(s.advantage[0]) for s in signals]


def kept(*groups: Sequence[float], **settings: Any) -> list[list[float]]:
    """The rewards of the groups that the filter keeps."""
    chosen = given_stage(RECIPE, "filter", **settings)([example_group(g) for g in groups], None)
    return [g.rewards.tolist() for g in chosen]


def sound() -> list[int]:
    """The lengths of the attempts that stay, of: one that ended, one that was cut off, and the same token 29 and 28 times."""
    made = (
        example_episode(1.0),
        example_episode(0.0, stop="length"),
        example_episode(0.0, [7] * (GRAM + OFTEN - 1)),
    )
    shorter = example_episode(0.0, [7] * (GRAM + OFTEN - 2))
    stay = given_stage(RECIPE, "filter")([replace(example_group([1.0]), episodes=(*made, shorter))], None)
    return [len(e.tokens) for e in stay[0].episodes]


RECIPE: Recipe = Recipe(
    name="spear",
    base=GRPO,
    paper=Paper(
        "Learn the Ropes, Then Trust the Wins: Self-imitation with Progressive Exploration for Agentic Reinforcement Learning",
        "2509.22601",
        2025,
    ),
    published_lr=1e-6,
    idea="At first every turn earns a little, so that a policy learns to use its tools at all; that fades. Then what went better than its "
    "group is kept for a few steps, and imitated where it is still better than what is usual by now. Tokens that would be "
    "driven to certainty are left out of that.",
    equation="R = r + mu(t) min(1, 0.1 turns);  A = R - mean R;  replayed: gamma(t) clip loss of A' = R - median of group means, A' >= 0",
    departures=(
        "the buffer holds 64 episodes (2,048 in the paper, for batches of 256): credit.buffer_episodes",
        "a group of which fewer than two sound attempts are left is trained on as it is",
        "what is replayed is averaged over its own episodes, as a term beside the fresh ones",
        "attempts with unreadable characters are not looked for; the penalty for invalid actions is the world's own business",
        "log pi in the covariance is that of the policy before the step's update, not of every minibatch",
    ),
    stages={
        "filter": stage(Sound),
        "credit": stage(OwnBest),
        "objective": stage(fresh_and_replayed),
    },
    claim="Where rewards are rare, more tasks are solved after as many steps than with GRPO, and entropy stays.",
    manipulation=(Manipulated("episodes are replayed", r"credit\.replayed", 1.0, read="max"),),
    examples=(
        ByHand(
            "praise of turns at the beginning, in the middle, at the end",
            lambda: [turn_factor(t, 200) for t in (0, 100, 200, 300)],
            [1.0, 0.5, 0.0, 0.0],
        ),
        ByHand(
            "weight of what is replayed",
            lambda: [replay_factor(t, 100) for t in (0, 50, 100, 300)],
            [0.0, 0.5, 1.0, 1.0],
        ),
        ByHand("1.1 for one turn, 1.3 for three", with_turns, [-0.1, 0.1]),
        ByHand(
            "four are held (> 1.5 x 2), the means are 1/4, 1/2, 1/2, 1/2: of four with A' = 1/2 two are replayed, at full weight",
            lambda: credited((5, [1.0, 0, 0, 0]), (6, [1.0, 0]), (7, [1.0, 0]), (8, [1.0, 0])),
            [[0.5, 0.0], [-0.5, 0.0], [0.5, 1.0], [0.5, 1.0]],
        ),
        ByHand(
            "three are held: too few",
            lambda: credited((6, [1.0, 0]), (7, [1.0, 0]), (8, [1.0, 0])),
            [[0.5, 0.0], [-0.5, 0.0]],
        ),
        ByHand(
            "the first is too old",
            lambda: credited((1, [1.0, 0]), (6, [1.0, 0]), (7, [1.0, 0]), (8, [1.0, 0])),
            [[0.5, 0.0], [-0.5, 0.0]],
        ),
        ByHand(
            "half weight after one of two steps",
            lambda: credited((0, [1.0, 0]), (0, [1.0, 0]), (0, [1.0, 0]), (1, [1.0, 0]))[2:],
            [[0.5, 0.5], [0.5, 0.5]],
        ),
        ByHand(
            "covariances 1, -1, -1, 1 of advantages 1, 1, -1, -1",
            lambda: choosable(np.array([1.0, 1, -1, -1]), np.array([-1.0, -3, -1, -3]), 0.5, 2).astype(float),
            [1.0, 0, 0, 1],
        ),
        ByHand(
            "three of four groups: the one without differences goes",
            lambda: kept([1.0, 1.0], [1.0, 0.0], [0.5, 0.0], [1.0, 0.5]),
            [[1.0, 0.0], [0.5, 0.0], [1.0, 0.5]],
        ),
        ByHand("cut off, and the same 20 tokens ten times over, are left out", sound, [1, 28]),
        OffPolicy(
            "fresh above and below the clip, replayed within it: both over 2 tokens of one episode, length 64",
            ratio=(1.5, 0.5, 1.1, 1.5),
            advantage=(1.0, -1.0, 1.0, -1.0),
            weights={"policy": (1.0, 1.0, 0.0, 0.0), REPLAYED: (0.0, 0.0, 0.5, 0.5)},
            loss=(-1.28 + 0.8) / 64 + 0.5 * (-1.1 + 1.5) / 64,
            gradient=(0.0, 0.0, -0.5 * 1.1 / 64, 0.5 * 1.5 / 64),
        ),
        Reduction(
            "no praise, nothing replayed, all groups: Dr. GRPO",
            "dr_grpo",
            {
                "credit.turn_weight": 0.0,
                "credit.replay_weight": 0.0,
                "filter.kept_groups": 1.0,
                "filter.sound_only": False,
                "objective.clip_high": 0.2,
            },
        ),
    ),
)
