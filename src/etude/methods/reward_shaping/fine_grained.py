"""Fine-grained rewards: every piece of an answer is judged, and rewarded where it ends.

One number for a long answer does not say which sentence was wrong. Several rewards judge it, each piece by piece in its own way of
cutting (clauses for relevance, sentences for facts, the whole for completeness), and each piece's reward comes with its last token. PPO
then knows where. Fine-Grained Human Feedback Gives Better Rewards for Language Model Training, arXiv 2306.01693; numbers after the
released code (allenai/FineGrainedRLHF, `fgrlhf/ppo.py`, `fine_grained_config.yml`).

    etude train fine_grained -t prompts.jsonl:check=none --reward ./mine.py:relevant,by=clause,weight=0.3 \\
        --reward ./mine.py:true,by=sentence,weight=0.5 --reward model:RM,weight=0.3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import numpy as np

from etude.channels import writes
from etude.credit.baseline import Gamma, Lambda, terminal, token_gae
from etude.credit.kl_penalty import KLPrice, drift
from etude.fixtures.given import GivenContext, GivenModel, example_answers, given_stage
from etude.methods.policy_gradient.ppo import RECIPE as PPO
from etude.recipe import ByHand, Manipulated, Paper, Recipe, Reduction
from etude.reward.combined import PARTIAL
from etude.rollout.probe import text_ends
from etude.settings import Setting, stage
from etude.stages import Context
from etude.text.tokenizer import Tokenizer
from etude.types import Array, Episode, Group, Signal


def laid_out(episode: Episode, tokenizer: Tokenizer) -> Array:
    """f32[T]: what each piece is worth on the token with which it ends, and the rest of the reward on the last token."""
    partial = [(int(end), float(worth)) for end, worth in episode.notes.get(PARTIAL, ())]
    row = terminal(episode, episode.reward - sum(worth for _, worth in partial))
    starts = np.cumsum([0, *(len(s) for s in episode.spans)])
    places = [i for i, s in enumerate(episode.spans) if s.sampled and len(s)]
    if not partial or not places:
        return row
    tokens, start = episode.spans[places[-1]].tokens, int(starts[places[-1]])
    ends = text_ends(tokenizer, tokens)
    before = len(episode.text) - int(ends[-1])  # characters of a prefix that was not sampled
    for end, worth in partial:
        row[start + int(np.searchsorted(ends[:-1], end - before))] += worth
    return row


@writes("policy", extras=("returns", "values"))
class AtTheEndsOfPieces:
    """GAE of r_t = sum of the rewards of pieces that end at t - kl_weight (log pi_old - log pi_ref)(y_t)."""

    def __init__(
        self,
        kl_weight: KLPrice = 0.3,
        scale_rewards: Annotated[
            bool, Setting("divide rewards by their standard deviation over the tokens of the batch")
        ] = True,
        gamma: Gamma = 1.0,
        lam: Lambda = 0.95,
    ) -> None:
        self.kl_weight, self.scale_rewards, self.gamma, self.lam = kl_weight, scale_rewards, gamma, lam
        self.reads = frozenset({"reference"} if kl_weight else ())
        self.pieces = 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        episodes = [e for g in groups for e in g.episodes]
        rewards = [laid_out(e, context.policy.tokenizer) for e in episodes]
        self.pieces = float(np.mean([len(e.notes.get(PARTIAL, ())) for e in episodes])) if episodes else 0.0
        if self.kl_weight:
            away = drift(episodes, context)
            rewards = [r - self.kl_weight * d for r, d in zip(rewards, away, strict=True)]
        if self.scale_rewards and episodes:
            every = np.concatenate([r[e.sampled] for r, e in zip(rewards, episodes, strict=True)])
            rewards = [r / (every.std() + 1e-8) for r in rewards]
        return token_gae(episodes, rewards, context, self.gamma, self.lam)

    def report(self) -> dict[str, float]:
        """`pieces`: how many of an answer were judged, on average."""
        return {"pieces": self.pieces}


def answered(text: str, reward: float, *partial: tuple[int, float]) -> Group:
    """One answer, a token a letter and one that ends it, with these rewards of pieces."""
    made = example_answers((reward, [*(ord(c) for c in text), 0]))
    (episode,) = made.episodes
    notes = {**episode.notes, PARTIAL: [list(p) for p in partial]}
    return replace(made, episodes=(replace(episode, text=text, notes=notes),))


def returns(group: Group, **settings: object) -> list[float]:
    """The returns of the answer's tokens where V = 0, lambda = gamma = 1 and log pi - log pi_ref = 1."""
    models = {"reference": GivenModel(-2.0)}
    context = GivenContext(GivenModel(value=0.0), models)
    (signal,) = given_stage(RECIPE, "credit", lam=1.0, **settings)([group], context)
    return [float(v) for v in signal.extras["returns"][signal.episode.sampled]]


# "ab. c": pieces end after "ab." (token 2) and at the end of the text (token 4); the stop token is token 5.
TWO = answered("ab. c", 1.5, (3, -0.5), (5, 1.0), (3, 0.25))
OFF = {"kl_weight": 0.0, "scale_rewards": False}
R = np.array([0, 0, -0.25, 0, 1.0, 0.75])  # what the pieces are worth, and what is left of 1.5

RECIPE: Recipe = Recipe(
    name="fine_grained",
    base=PPO,
    paper=Paper(
        "Fine-Grained Human Feedback Gives Better Rewards for Language Model Training", "2306.01693", 2023
    ),
    published_lr=1e-5,
    idea="Several rewards judge an answer piece by piece: clauses, sentences, the whole. "
    "Each piece is rewarded at its last token, and not all of them at the end. "
    "So the policy hears which sentence was wrong.",
    equation="r_t = sum_k sum_j 1[t = T_jk] w_k R_k(x, y, j) - beta (log pi - log pi_ref)(y_t);  otherwise as PPO",
    departures=(
        "which rewards there are and how they cut an answer is said by --reward SOURCE,by=PIECE; the paper's three are classifiers on "
        "Longformer with tags before each piece",
        "a piece is judged by itself, where the paper's classifiers see the whole answer",
        "two passes over a batch, as PPO has them here; the released code makes four",
        "one policy and value network, where the paper's value network is a smaller model",
    ),
    stages={"credit": stage(AtTheEndsOfPieces)},
    claim="Rewards of single steps teach several-step arithmetic in fewer episodes than the same sum at the end.",
    manipulation=(
        Manipulated("the learned value moves by 0.05", "value", 0.05, read="range"),
        Manipulated("two pieces of an answer are judged", "credit.pieces", 2.0),
    ),
    examples=(
        ByHand(
            "each piece where it ends, the rest of the reward at the stop token; returns are what is still to come",
            lambda: returns(TWO, **OFF),
            np.cumsum(R[::-1])[::-1],
        ),
        ByHand(
            "less 0.1 nats a token, over the standard deviation",
            lambda: returns(TWO, kl_weight=0.1),
            np.cumsum((R - 0.1)[::-1])[::-1] / R.std(),
        ),
        ByHand(
            "nothing judged piece by piece: all at the end",
            lambda: returns(answered("ab", 0.5), **OFF),
            [0.5, 0.5, 0.5],
        ),
        Reduction(
            "whole answers alone, without a penalty: PPO",
            "ppo",
            {"credit.kl_weight": 0.0, "credit.scale_rewards": False},
        ),
    ),
)
