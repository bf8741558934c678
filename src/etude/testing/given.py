"""Models that say what they are told, for numbers of credit and objectives that are worked by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from etude import seeds
from etude.batch import Batch, pack, unpack
from etude.models.outputs import Outputs
from etude.objective.terms import Objective
from etude.recipe import Recipe
from etude.testing.examples import EXAMPLE_TASK, example_episode
from etude.types import Array, Episode, Group, SamplingParams, Signal, Span

Numbers = float | Sequence[float] | Sequence[Sequence[float]]


class Letters:
    """A tokenizer in which a token is a character's code; 0 ends a reply and has no text."""

    stops = (0,)

    @property
    def backend(self) -> Letters:
        return self

    def get_vocab_size(self) -> int:
        return 128

    def encode(self, text: str) -> Array:
        return np.array([ord(c) for c in text], np.int32)

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(chr(t) for t in tokens if t)


class GivenModel:
    """Outputs as given: one number for all needed tokens (`Batch.needed`), or one for each, in the order of the signals
    asked about. `learn` keeps the objectives and signals that it was called with, and changes nothing."""

    tokenizer = renderer = Letters()

    def __init__(
        self, logp: Numbers = -1.0, entropy: Numbers = 0.0, hidden: Numbers = 0.0, **heads: Numbers
    ) -> None:
        self.logp, self.entropy, self.hidden, self.heads = logp, entropy, hidden, heads
        self.lessons: list[tuple[Objective, list[Signal]]] = []

    @property
    def policy(self) -> GivenModel:
        return self

    def score(self, batch: Batch, needs: Iterable[str] = ()) -> Outputs:
        needed = batch.needed.nonzero()[:, 0]
        order = needed[batch.origin[needed].argsort()]

        def row(numbers: Numbers, wide: bool = True) -> Tensor:
            given = torch.tensor(numbers, dtype=torch.float64)
            given = given[:, None] if wide and given.dim() == 1 else given
            found = torch.zeros(len(batch), given.shape[1] if given.dim() == 2 else 1, dtype=torch.float64)
            found = found if wide else found[:, 0]
            found[order] = given
            return found

        heads = {name: row(numbers) for name, numbers in self.heads.items()}
        return Outputs(
            row(self.logp, False), row(self.entropy, False), heads, row(self.hidden), lambda hidden: hidden
        )

    def learn(self, objective: Objective, signals: Sequence[Signal], step: int, progress: float) -> None:
        self.lessons.append((objective, list(signals)))

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


@dataclass
class GivenContext:
    """What credit reads of a run (`stages.Context`), with given models."""

    policy: GivenModel = field(default_factory=GivenModel)
    auxiliary: dict[str, Any] = field(default_factory=dict)
    progress: float = 0.0
    seed: int = 0
    step: int = 0
    drawn: int = 0
    sampling: SamplingParams = field(default_factory=SamplingParams)

    def rng(self, purpose: str, *parts: object) -> np.random.Generator:
        return seeds.generator(self.seed, purpose, self.step, *parts)

    def rows(
        self,
        signals: Sequence[Signal],
        read: Callable[[Outputs], Tensor],
        needs: Iterable[str] = (),
        policy: Any = None,
    ) -> list[Array]:
        if not signals:
            return []
        batch = pack(signals)
        return unpack(read((policy or self.policy).score(batch, needs)), batch, signals)

    def with_logp(self, signals: Sequence[Signal], model: str) -> list[Signal]:
        rows = self.rows(signals, lambda out: out.logp, policy=self.auxiliary[model])
        return [replace(s, extras={**s.extras, model: row}) for s, row in zip(signals, rows, strict=True)]


def given_stage(recipe: Recipe, name: str, **settings: Any) -> Any:
    """A stage of the recipe, built with its own settings and these."""
    return recipe.resolved()[name].but(**settings).build(name)


PROMPT = Span("user", np.ones(1, np.int32), tag="prompt")


def example_attempts(*answers: tuple[float, Sequence[int]], demonstrations: Sequence[Episode] = ()) -> Group:
    """Attempts at one task from (reward, tokens), after a prompt of one token; log-probability -1 a token; right where
    the reward is positive."""
    made = (example_episode(reward, tokens, i) for i, (reward, tokens) in enumerate(answers))
    asked = tuple(replace(e, spans=(PROMPT, *e.spans)) for e in made)
    return Group(EXAMPLE_TASK, asked, demonstrations=tuple(demonstrations))


def example_demonstration(solution: str | Sequence[int] = (1,)) -> Episode:
    """A prompt of one token and a solution of these tokens (of a text: its letters, and the end)."""
    tokens = [*Letters().encode(solution), 0] if isinstance(solution, str) else list(solution)
    words = Span("assistant", np.array(tokens, np.int32), tag="demonstration")
    return Episode(EXAMPLE_TASK, (PROMPT, words), player="demonstration", scores={"reward": 1.0})


def beyond_prompt(signals: Sequence[Signal], name: str = "advantage") -> list[float]:
    """The advantages (or the weight row or extra `name`) of all tokens but the prompts', end to end."""
    rows = ({"advantage": s.advantage, **s.weights, **s.extras} for s in signals)
    return [
        float(v) for s, row in zip(signals, rows, strict=True) for v in row.get(name, 0 * s.advantage)[1:]
    ]


def example_loss(objective: Objective, signals: Sequence[Signal], model: GivenModel) -> float:
    """The objective's value on the signals, divided as a step divides it."""
    batch = pack(signals)
    out = model.score(batch)
    totals = ((t.coefficient * t.total(out, batch)[0], t.count(batch)) for t in objective.terms)
    return sum(float(total) / count for total, count in totals if count)
