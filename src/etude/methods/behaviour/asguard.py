"""ASGuard: the attention heads that let an attack through are scaled, and the model learns to refuse while they are.

A task brings the attack as its prompt, what it must not say to it (`rejected`), what it should say (`chosen`), and, where there is one,
the same request in the form that it refuses anyway (`plain`). ASGuard, and its release (dmis-lab/ASGuard).

    1. heads     score of head h = d [log pi(y-) - log pi(y+)] / d s_h at s = 1, under attack, less the same in the plain form;
                 the n heads with the greatest score are chosen
    2. scaling   s, a number a channel of the chosen heads, is learnt: min_s CE(y+ | attack), the model held fixed
    3. weights   min_theta CE(y+ | attack) while the scaling is on; it is taken off where the model is used

Both are done on the pairs of the first step that brings some.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from etude.batch import Batch, pack
from etude.channels import writes
from etude.credit.imitate import IMITATION, imitate, tagged
from etude.errors import UserError
from etude.fixtures.given import GivenContext, beyond_prompt, example_demonstration, given_stage
from etude.methods.imitation.sft import RECIPE as SFT
from etude.models.hooks import Hook, depth, hooked
from etude.objective.imitation import cross_entropy
from etude.objective.terms import Objective
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout.demonstrate import DEMONSTRATED
from etude.rollout.pairs import pairs_or_solution, side_of
from etude.settings import Setting, stage
from etude.stages import Context
from etude.tasks.pairs import CHOSEN, REJECTED
from etude.types import Array, Episode, Group, Signal, Span
from etude.update import Update

SCALING = "asguard"
"""What credit leaves with the policy (`Policy.left`): {block, from 1: f32[D] channels}."""
PLAIN = "plain"  # column: the request in the form that is refused anyway

# ---- heads and their scaling -------------------------------------------------------------------------


class Channels:
    """s * h with s learnable on the channels `on` (bool[D]; None: all), made when it first sees a state."""

    def __init__(self, on: Tensor | None = None) -> None:
        self.on, self.s = on, torch.zeros(0)

    def __call__(self, state: Tensor, tokens: Tensor | None) -> Tensor:
        if not len(self.s):
            self.s = torch.ones(state.shape[-1], device=state.device, requires_grad=True)
        s = self.s if self.on is None else torch.where(self.on.to(self.s.device), self.s, 1.0)
        return state * s.to(state.dtype)


def heads_of(config: Mapping[str, Any]) -> int:
    """The number of attention heads of a block. UserError where the configuration does not say."""
    found = config.get("num_attention_heads") or config.get("n_head")
    if not isinstance(found, int):
        raise UserError(
            "the model's configuration does not say how many attention heads it has, so none can be scaled"
        )
    return found


def attribution(policy: Any, batch: Batch, sign: Tensor) -> Array:
    """f64[layers, heads]: d sum_t sign_t log pi_t / d s_h at s = 1, over the batch's tokens; f32[N] `sign`."""
    layers, heads = depth(policy), heads_of(policy.config)
    changes = [Channels() for _ in range(layers)]
    with hooked(policy, *(Hook(i + 1, c, "heads") for i, c in enumerate(changes))), torch.enable_grad():
        logp = policy.outputs(batch).logp
        found = torch.autograd.grad((sign.to(logp.device) * logp).sum(), [c.s for c in changes])
    return np.stack([g.detach().cpu().double().reshape(heads, -1).sum(1).numpy() for g in found])


def signed(pairs: Sequence[tuple[Episode, Episode]]) -> tuple[Batch, Tensor]:
    """A batch of (y+, y-), and the sign of its tokens: the mean over y- less the mean over y+, a mean over pairs."""
    signals, signs = [], []
    for good, bad in pairs:
        for episode, side in ((good, -1.0), (bad, 1.0)):
            on = answer_of(episode)
            signals.append(imitate(episode, on))
            signs.append(side * on / max(1, on.sum()) / len(pairs))
    batch = pack(signals)
    return batch, torch.from_numpy(np.concatenate(signs))[batch.origin].float()


def answer_of(episode: Episode) -> Array:
    return tagged(episode, side_of(episode) or DEMONSTRATED)


def behind(prompt: Array, episode: Episode) -> Episode:
    """The same answer after another prompt."""
    return replace(
        episode, spans=(Span("user", prompt, tag="prompt"), *(s for s in episode.spans if s.role != "user"))
    )


def chosen_heads(score: Array, number: int) -> list[tuple[int, int]]:
    """(block from 1, head) of the greatest scores above 0; of equal ones the first."""
    order = np.argsort(-score, axis=None, kind="stable")[:number]
    return [(int(i) // score.shape[1] + 1, int(i) % score.shape[1]) for i in order if score.flat[i] > 0]


def learnt(
    policy: Any,
    heads: Sequence[tuple[int, int]],
    signals: Sequence[Signal],
    passes: int,
    lr: float,
    order: Sequence[Array],
) -> dict[int, Tensor]:
    """{block: f32[D]}: the channels' factors, 1 outside the chosen heads, after AdamW on one answer at a time."""
    number = heads_of(policy.config)
    changes: dict[int, Channels] = {}
    hooks = [
        Hook(block, changes.setdefault(block, Channels()), "heads") for block in sorted({b for b, _ in heads})
    ]
    optimiser: torch.optim.AdamW | None = None
    with hooked(policy, *hooks), torch.enable_grad():
        for turn in range(passes):
            for i in order[turn]:
                batch = pack([signals[i]])
                for block, change in changes.items():
                    if len(change.s) and change.on is None:
                        change.on = _within(len(change.s), number, [h for b, h in heads if b == block])
                logp = policy.outputs(batch).logp
                on = batch.weight(IMITATION).to(logp.device)
                learned = [c.s for c in changes.values()]
                found = torch.autograd.grad(-(on * logp).sum() / on.sum().clamp(min=1), learned)
                optimiser = optimiser or torch.optim.AdamW(learned, lr=lr)
                for s, gradient in zip(learned, found, strict=True):
                    s.grad = gradient
                optimiser.step()
    made = {}
    for block, change in changes.items():
        on = _within(len(change.s), number, [h for b, h in heads if b == block]).to(change.s.device)
        made[block] = torch.where(on, change.s.detach(), 1.0)
    return made


def _within(width: int, heads: int, mine: Sequence[int]) -> Tensor:
    """bool[D]: the channels of these heads."""
    return torch.isin(torch.arange(width) // (width // heads), torch.tensor(mine))


# ---- credit ------------------------------------------------------------------------------------------


@writes(IMITATION)
class Guarded:
    """Imitation of `chosen` and of other tasks' solutions. The first step that brings pairs finds the heads and learns their scaling,
    which from then on lies with the policy."""

    def __init__(
        self,
        heads: Annotated[int, Setting("n: heads that are scaled; 0: none", low=0, high=100_000)] = 8,
        scale_passes: Annotated[
            int, Setting("times the pairs are gone through to learn the scaling", low=1)
        ] = 3,
        scale_lr: Annotated[float, Setting("learning rate of the scaling", low=0, high=10)] = 5e-2,
    ) -> None:
        self.heads, self.passes, self.lr = heads, scale_passes, scale_lr
        self.scaling: dict[int, Tensor] | None = None
        self.chosen: list[tuple[int, int]] = []

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        pairs = [both for g in groups if (both := pair_of(g))]
        if self.heads and self.scaling is None and pairs:
            self.find(pairs, context)
        if self.scaling is not None:
            context.policy.left[SCALING] = self.scaling
        shown = [e for g in groups for e in g.demonstrations if side_of(e) != REJECTED]
        return [imitate(e, answer_of(e)) for e in shown]

    def find(self, pairs: Sequence[tuple[Episode, Episode]], context: Context) -> None:
        """Heads and scaling."""
        policy = context.policy
        score = attribution(policy, *signed(pairs))
        plain = []
        for good, bad in pairs:
            if isinstance(asked := good.task.meta.get(PLAIN), str) and asked:
                task = replace(good.task, prompt=asked)  # type: ignore[arg-type]
                prompt = policy.renderer.prompt(task.prompt, len(task.prompt))
                plain.append((behind(prompt, good), behind(prompt, bad)))
        if plain:
            score = score - attribution(policy, *signed(plain))
        self.chosen = chosen_heads(score, self.heads)
        signals = [imitate(good, answer_of(good)) for good, _ in pairs]
        order = [context.rng("asguard", turn).permutation(len(signals)) for turn in range(self.passes)]
        self.scaling = (
            learnt(policy, self.chosen, signals, self.passes, self.lr, order) if self.chosen else {}
        )

    def report(self) -> dict[str, float]:
        """How many heads are scaled, and by what at the mean of their channels that changed."""
        changed = [s[s != 1] for s in (self.scaling or {}).values()]
        factors = torch.cat(changed) if changed else torch.ones(1)
        return {"heads": float(len(self.chosen)), "factor": float(factors.mean()) if len(factors) else 1.0}

    def state_dict(self) -> dict[str, Any]:
        return {"scaling": self.scaling, "chosen": self.chosen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scaling, self.chosen = state["scaling"], [tuple(pair) for pair in state["chosen"]]


def pair_of(group: Group) -> tuple[Episode, Episode] | None:
    """The group's y+ and y-; None where its task brings no pair."""
    found = {side_of(e): e for e in group.demonstrations}
    return (found[CHOSEN], found[REJECTED]) if CHOSEN in found and REJECTED in found else None


# ---- loss --------------------------------------------------------------------------------------------


def while_scaled() -> Objective:
    """-log pi(y*_t), a token mean, computed while the scaling is on."""

    @contextmanager
    def under(policy: Any, batch: Batch) -> Iterator[None]:
        scaling = getattr(policy, "left", {}).get(SCALING) or {}
        hooks = [Hook(block, _scaled(s), "heads") for block, s in scaling.items()]
        if not hooks:
            yield
            return
        with hooked(policy, *hooks):
            yield

    return replace(cross_entropy(), under=under)


def _scaled(s: Tensor) -> Channels:
    change = Channels()
    change.s = s
    return change


RECIPE: Recipe = Recipe(
    name="asguard",
    base=SFT,
    paper=Paper(
        "ASGuard: Activation-Scaling Guard to Mitigate Targeted Jailbreaking Attack", "2509.25843", 2025
    ),
    published_lr=9e-6,
    idea="A model that refuses a request may answer it in another form, because some attention heads do not see that it is the same. These "
    "heads are found, and factors for their channels are learnt with which the model refuses. While the factors are on, the weights learn to "
    "refuse; then the factors are taken off.",
    equation="s = argmin CE(y+ | h * s);  L = - mean_t log pi(y+_t | h * s);  used at s = 1",
    departures=(
        "heads are found by the first-order effect of scaling them, where the paper traces circuits by integrated gradients and takes the "
        "heads that only successful attacks use; its list for a model cannot be given",
        "a head's channels are scaled before the output matrix of attention; the release scales slices behind it, where heads are mixed",
        "heads and factors come from the pairs of the first step that brings some (run.tasks_per_step), not from the whole data set",
        "solutions of tasks without a pair are imitated beside, where there are any; the paper has none",
    ),
    stages={
        "group_rollout": stage(pairs_or_solution),
        "credit": stage(Guarded),
        "objective": stage(while_scaled),
        "update": stage(Update, weight_decay=0.05),
    },
    needs=("answer", "text"),
    claim="Attacks in a reworded form succeed less often, with fewer wrong refusals than after plain fine-tuning to refuse.",
    manipulation=(Manipulated("a head is scaled at least", "credit.heads", 1, read="last"),),
    examples=(
        ByHand(
            "the two heads with the greatest scores above 0: block 2's first, block 1's second",
            lambda: chosen_heads(np.array([[-1.0, 2.0], [3.0, 0.0]]), 3),
            [(2, 0), (1, 1)],
        ),
        ByHand(
            "channels of the second of four heads",
            lambda: _within(8, 4, [1]).float().tolist(),
            [0, 0, 1, 1, 0, 0, 0, 0],
        ),
        ByHand(
            "solutions of other tasks are imitated",
            lambda: beyond_prompt(
                given_stage(RECIPE, "credit")(
                    [
                        Group(
                            example_demonstration().task, (), demonstrations=(example_demonstration((7, 8)),)
                        )
                    ],
                    GivenContext(),
                ),
                IMITATION,
            ),
            [1, 1],
        ),
        OffPolicy(
            "no factors: log pi = -1 + ln 4 and -1 - ln 2; a third token is not imitated",
            ratio=(4.0, 0.5, 3.0),
            advantage=(0.0, 0.0, 0.0),
            weights={IMITATION: (1.0, 1.0, 0.0)},
            loss=((1 - math.log(4)) + (1 + math.log(2))) / 2,
            gradient=(-1 / 2, -1 / 2, 0.0),
        ),
        Reduction("no heads: SFT", "sft", {"credit.heads": 0}, {"update.weight_decay": 0.05}),
    ),
)
