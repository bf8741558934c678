"""Can a small network learn, without labels, to play repeated games without regret?

At each of T rounds the player gives probabilities pi_t over d actions, from the losses l_1 .. l_{t-1} alone; its regret is
sum_t <l_t, pi_t> - min_i sum_t l_{t,i}. Regret-loss trains it on random loss sequences:

    L = E_j [ sum_j h(R_j) f(R_j, k) / sum_j f(R_j, k) ],  h(x) = max(0, x)^2,  f(x, k) = max(0, x)^k over N sequences

which for N = 1 is E h(R). The player is one layer of causal linear self-attention. Compared with follow-the-regularised-leader,
pi_t = softmax(-eta sum_{s<t} l_s), and with a player that follows the leader; on sequences of a sort that it was trained on
(Gaussian), and of sorts that it was not (trending, alternating). b0: the slope of log regret against log t, below 1 without regret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from etude import seeds
from etude.recipe import Paper
from etude.study.declare import Arm, Defaults, Hypothesis, Measure, Study, more
from etude.study.subject import Subject

ACTIONS, ROUNDS, WIDTH = 2, 25, 16
STEPS, BATCH, RATE = 400, 64, 1e-2
EXAMINED = 512  # sequences
N, K = 4, 2  # sequences that regret-loss weighs against each other, and its exponent


class Player(nn.Module):
    """One layer of causal linear self-attention over the losses so far."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Parameter(0.1 * torch.randn(WIDTH))
        self.key = nn.Linear(ACTIONS, WIDTH)
        self.value = nn.Linear(ACTIONS, ACTIONS)

    def forward(self, losses: Tensor) -> Tensor:
        """f32[B, T, d] losses -> f32[B, T, d] probabilities; round t has seen the losses before it."""
        weight = self.key(losses) @ self.query
        seen = (weight[..., None] * self.value(losses)).cumsum(1)
        before = torch.cat([torch.zeros_like(seen[:, :1]), seen[:, :-1]], 1)
        return torch.softmax(before, -1)


def regret(losses: Tensor, play: Tensor) -> Tensor:
    """f32[B, T]: the regret after each round."""
    paid = (losses * play).sum(-1).cumsum(1)
    return paid - losses.cumsum(1).min(-1).values


def regret_loss(regrets: Tensor) -> Tensor:
    """The loss of f32[B, N] final regrets; a mean over B."""
    h, f = regrets.clamp(min=0) ** 2, regrets.clamp(min=0) ** K
    return ((h * f).sum(1) / f.sum(1).clamp(min=1e-9)).mean()


def gaussian(rng: np.random.Generator, number: int) -> Tensor:
    mean = rng.uniform(-0.5, 0.5, (number, 1, ACTIONS))
    return torch.tensor(mean + rng.standard_normal((number, ROUNDS, ACTIONS)), dtype=torch.float32)


def trending(rng: np.random.Generator, number: int) -> Tensor:
    slope = rng.uniform(-1, 1, (number, 1, ACTIONS))
    time = np.linspace(0, 1, ROUNDS)[None, :, None]
    return torch.tensor(
        slope * time + 0.3 * rng.standard_normal((number, ROUNDS, ACTIONS)), dtype=torch.float32
    )


def alternating(rng: np.random.Generator, number: int) -> Tensor:
    """The worst for who follows the leader: a small first loss decides, then one action after the other loses."""
    first = rng.uniform(0, 1, (number, 1))
    turn = (np.arange(1, ROUNDS) % 2)[None, :].repeat(number, 0)
    a = np.concatenate(
        [first * 0.5, 1 - turn], 1
    )  # behind by less than a half, so that b is played, and loses
    b = np.concatenate([np.zeros((number, 1)), turn], 1)
    return torch.tensor(np.stack([a, b], -1), dtype=torch.float32)


SORTS: Mapping[str, Callable[[np.random.Generator, int], Tensor]] = {
    "gaussian": gaussian,
    "trending": trending,
    "alternating": alternating,
}


def learned(seed: int) -> Player:
    """A player trained by regret-loss on Gaussian sequences."""
    torch.manual_seed(seeds.key("regret", seed) % 2**31)
    player = Player()
    optimiser = torch.optim.Adam(player.parameters(), lr=RATE)
    rng = seeds.generator(seed, "regret", "training")
    for _ in range(STEPS):
        losses = gaussian(rng, BATCH * N)
        found = regret_loss(regret(losses, player(losses))[:, -1].reshape(BATCH, N))
        optimiser.zero_grad()
        found.backward()
        optimiser.step()
    return player


def leader(losses: Tensor, rate: float) -> Tensor:
    """FTRL with the entropic regulariser, rate eta / sqrt(T); a very large rate follows the leader."""
    total = losses.cumsum(1)
    before = torch.cat([torch.zeros_like(total[:, :1]), total[:, :-1]], 1)
    return torch.softmax(-rate * before / ROUNDS**0.5, -1)


@torch.no_grad()
def slope(regrets: Tensor) -> float:
    """b0 of the mean regret, from round 3 on; 0 where it is not positive."""
    mean = regrets.mean(0).clamp(min=1e-3).numpy()
    time = np.arange(1, ROUNDS + 1)
    return float(np.polyfit(np.log(time[2:]), np.log(mean[2:]), 1)[0])


def look(subject: Subject) -> Mapping[str, float]:
    kind, rng = subject.arm.given["player"], seeds.generator(subject.seed, "regret", "exam")
    player = learned(subject.seed) if kind == "learned" else None
    found = {}
    with torch.no_grad():
        for sort, draw in SORTS.items():
            losses = draw(rng, EXAMINED)
            play = (
                player(losses)
                if player
                else leader(losses, {"ftrl": 1.4, "leader": 1e6, "uniform": 0.0}[kind])
            )
            regrets = regret(losses, play)
            found[sort] = float(regrets[:, -1].mean()) / ROUNDS
            if sort == "gaussian":
                found["b0"] = slope(regrets)
    return found


UNIT = "loss a round"
STUDY = Study(
    name="regret_loss",
    paper=Paper("Do LLM Agents Have Regret? A Case Study in Online Learning and Games", "2403.16843", 2024),
    question="Does a network that is trained on its regret alone play without regret, also against losses of another sort?",
    arms=tuple(Arm(name, given={"player": name}) for name in ("learned", "ftrl", "leader", "uniform")),
    measures=(
        Measure("gaussian", UNIT, "regret over T on Gaussian losses, as in training", look),
        Measure("trending", UNIT, "the same on trending losses", look),
        Measure("alternating", UNIT, "the same on alternating losses", look),
        Measure(
            "b0",
            "log regret per log round",
            "growth of regret on Gaussian losses; below 1: without regret",
            look,
        ),
    ),
    hypotheses=(
        Hypothesis(
            "no regret",
            "The learned player's regret grows more slowly than that of a player who gives all actions the same probability.",
            more("learned", "b0", "uniform"),
            least=0.1,
            better="lower",
        ),
        Hypothesis(
            "as good as FTRL",
            "On Gaussian losses its regret is that of FTRL, within 0.02 a round.",
            more("learned", "gaussian", "ftrl"),
            least=0.02,
            better="same",
        ),
        Hypothesis(
            "holds elsewhere",
            "On alternating losses, which it never saw, it has less regret than who follows the leader.",
            more("learned", "alternating", "leader"),
            least=0.05,
            better="lower",
        ),
    ),
    defaults=Defaults(model="", tasks="", budget="1-steps", seeds=6, problems=EXAMINED),
    departures=(
        "h, f, N = 4, k = 2 and T = 25 from memory of the paper",
        "the player is a network of its own, not a language model",
    ),
)
