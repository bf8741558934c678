"""Reward models: a language model with linear heads, read where an answer ends.

The number is that of the state in which the answer's last token, the one that ends a reply, is predicted: it has seen the
whole answer. Several heads are an ensemble. `etude train reward_model` writes such a directory, `heads.safetensors` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from etude.batch import pack, unpack
from etude.errors import UserError
from etude.models.policy import Policy
from etude.tasks.check import Unjudged
from etude.types import Array, Episode, Message, SamplingParams, Signal, Span, Task

HEAD, SPREAD = "reward", "spread"
"""Heads: the members' numbers, and (`brme`) how uncertain each is."""

Aggregate = Callable[[Array, Array], Array]
"""Numbers f64[n, K] of the members, and their uncertainties (zeros where there are none) -> f64[n]."""


def nominal(values: Array, spread: Array) -> Array:
    """The number of the member that is most certain."""
    found: Array = values[np.arange(len(values)), spread.argmin(axis=1)]
    return found


AGGREGATES: Mapping[str, Aggregate] = {
    "mean": lambda v, s: v.mean(axis=1),
    "min": lambda v, s: v.min(axis=1),
    "nominal": nominal,
}


class RewardModel:
    """`score(prompt, texts)` -> a number for each text. `aggregate`: how the members of an ensemble become one number; "robust"
    is a x nominal + (1 - a) x min, a = `nominal_weight` (arXiv 2409.15360). Raises UserError where `directory` holds none."""

    def __init__(self, directory: str, aggregate: str = "mean", nominal_weight: float = 0.6) -> None:
        path = Path(directory).expanduser()
        self.directory = path / "model" if (path / "model").is_dir() else path
        self.heads = head_sizes(self.directory)
        self.aggregate, self.nominal_weight = aggregate, nominal_weight
        if aggregate not in (*AGGREGATES, "robust"):
            raise UserError(f"aggregate is '{aggregate}'; it must be one of {', '.join(AGGREGATES)}, robust")
        if not 0 <= nominal_weight <= 1:
            raise UserError(f"nominal_weight is {nominal_weight:g}; it must lie in [0, 1]")
        self._policy: Policy | None = None

    def load(self, precision: str = "bf16", device: str = "cpu", **others: Any) -> None:
        """Reads the weights, once."""
        if self._policy is None:
            loaded = Policy.load(str(self.directory), precision, heads=self.heads, device=device)
            self._policy = loaded.clone(frozen=True)

    @property
    def policy(self) -> Policy:
        self.load()
        assert self._policy is not None
        return self._policy

    @property
    def policies(self) -> list[Policy]:
        return [] if self._policy is None else [self._policy]

    def score(self, prompt: str | Sequence[Message], texts: Sequence[str]) -> list[float]:
        """A number for each of `texts`, replies to `prompt`: larger is better, comparable within a prompt."""
        return [float(v) for v in self.scored([(prompt, text) for text in texts])]

    def scored(self, asked: Sequence[tuple[str | Sequence[Message], str]]) -> Array:
        """f64[n]: a number for each (prompt, reply)."""
        values, spread = self.members(asked)
        if self.aggregate == "robust":
            a = self.nominal_weight
            mixed: Array = a * nominal(values, spread) + (1 - a) * values.min(axis=1)
            return mixed
        return AGGREGATES[self.aggregate](values, spread)

    def tokens(self, asked: Sequence[tuple[str | Sequence[Message], str]]) -> int:
        """How many tokens `scored` reads."""
        return sum(len(ended(self.policy, prompt, text).episode.tokens) for prompt, text in asked)

    def members(self, asked: Sequence[tuple[str | Sequence[Message], str]]) -> tuple[Array, Array]:
        """f64[n, K] numbers of the members, and their uncertainties (zeros without a head for them)."""
        if not asked:
            return np.zeros((0, self.heads[HEAD])), np.zeros((0, self.heads[HEAD]))
        signals = [ended(self.policy, prompt, text) for prompt, text in asked]
        batch = pack(signals, SamplingParams())
        out = self.policy.score(batch)
        at_end = [s.weights[HEAD] != 0 for s in signals]
        rows = [
            np.stack(
                [r[on][-1] for r, on in zip(unpack(out.heads[name], batch, signals), at_end, strict=True)]
            )
            for name in (HEAD, *([SPREAD] if SPREAD in self.heads else []))
        ]
        values = rows[0].astype(np.float64)
        return values, np.exp(rows[1].astype(np.float64)) if len(rows) > 1 else np.zeros_like(values)

    def score_episode(self, episode: Episode) -> float:
        """Of the task's prompt and the last reply."""
        return self.score(episode.task.prompt, [episode.text])[0]


def ended(policy: Policy, prompt: str | Sequence[Message], text: str) -> Signal:
    """A prompt and a reply as a signal whose weight `HEAD` is 1 on the token that ends the reply. UserError where it is longer
    than the model reads."""
    messages = [Message("user", prompt)] if isinstance(prompt, str) else list(prompt)
    render = policy.renderer
    before = render.prompt(messages, len(messages))
    words = np.concatenate([render.tokenizer.encode(text), np.array(render.stops[:1], np.int32)])
    size = len(before) + len(words)
    if size > policy.context:
        raise UserError(
            f"an answer of {size} tokens is longer than the reward model reads ({policy.context})"
        )
    spans = (Span("user", before), Span("assistant", words))
    row = np.zeros(size, np.float32)
    row[-1] = 1
    return Signal(Episode(Task(tuple(messages), Unjudged()), spans), 0 * row, {HEAD: row})


def head_sizes(directory: Path) -> dict[str, int]:
    """{head: members} of a reward model's directory. Raises UserError where there are none."""
    path = directory / "heads.safetensors"
    sizes: dict[str, int] = {}
    if path.exists():
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a mapping)
                if name.endswith(".weight"):
                    sizes[name.removeprefix("heads.").removesuffix(".weight")] = file.get_slice(
                        name
                    ).get_shape()[0]
    if HEAD not in sizes:
        raise UserError(
            f"'{directory}' is no reward model: it has no head called '{HEAD}'; etude train reward_model makes one"
        )
    return {name: size for name, size in sizes.items() if name in (HEAD, SPREAD)}


def is_reward_model(directory: str | Path) -> bool:
    """Whether the directory, or the run in it, holds a reward model."""
    try:
        RewardModel(str(directory))
    except UserError:
        return False
    return True


def made(place: str, options: Mapping[str, str]) -> RewardModel:
    """The reward model that `--reward model:PLACE,option=value` names."""
    if unknown := sorted(options.keys() - {"aggregate", "nominal_weight"}):
        raise UserError(f"there is no option '{unknown[0]}'; a model takes aggregate and nominal_weight")
    given: dict[str, Any] = dict(options)
    if "nominal_weight" in given:
        try:
            given["nominal_weight"] = float(given["nominal_weight"])
        except ValueError:
            raise UserError(f"nominal_weight is '{given['nominal_weight']}'; it must be a number") from None
    return RewardModel(place, **given)
