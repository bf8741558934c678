"""Exact stand-ins for the parts of a run: a policy that is a table in float64, samplers over it, and one batch of a
recipe on small tasks, whose gradient can be taken under any cut into micro-batches."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from etude import seeds
from etude.assembly import build
from etude.batch import Batch, pack
from etude.machine import cpu_flags
from etude.methods import find
from etude.models import kernels
from etude.models import tiny as tiny_models
from etude.models.meter import Meter
from etude.models.outputs import Outputs
from etude.models.policy import Policy
from etude.objective.terms import Objective
from etude.recipe import AuxiliaryModel, Recipe
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import GroupRollout
from etude.sampling.protocol import Sample, Uniforms, Watch
from etude.testing.few import few
from etude.text import tokenizer as tokenizers
from etude.text.chat_template import Renderer
from etude.train.context import RunContext
from etude.train.step import Learner
from etude.types import Check, Group, Message, Request, SamplingParams, Signal, Task, Verdict
from etude.update import Update


def agree(a: torch.Tensor, b: torch.Tensor, precision: str) -> bool:
    """Equal to the last bit. In bf16 on a processor with AMX this needs the native kernels; without them, within the bound
    that is promised: 0.005 nats on average."""
    without = not kernels.tiles(torch.empty(0, dtype=torch.bfloat16))
    if precision == "bf16" and "amx_bf16" in cpu_flags() and without:
        return float((a - b).abs().mean()) <= 0.005
    return torch.equal(a, b)


@cache
def tokenizer() -> Any:
    """That of the tiny models: one token a character."""
    with tempfile.TemporaryDirectory() as place:
        return tokenizers.read(tiny_models.tiny_directory(Path(place) / "m"))


class TablePolicy:
    """log pi(token | previous token, position) from a table, in float64: every gradient is exact."""

    def __init__(self, seed: int = 0, heads: dict[str, int] | None = None, scale: float = 1.0) -> None:
        self.tokenizer = tokenizer()
        self.renderer = Renderer(self.tokenizer)
        self.size = self.tokenizer.backend.get_vocab_size()
        rng = seeds.torch_generator("table", seed)

        def table(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(scale * torch.randn(*shape, generator=rng, dtype=torch.float64))

        self.after, self.place = table(self.size, self.size), table(64, self.size)
        self.heads = {name: table(self.size, k) for name, k in (heads or {}).items()}
        self.version = 0
        self.meter = Meter(self.size)

    def parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        heads = [(f"heads.{n}", p) for n, p in self.heads.items()]
        return [("after", self.after), ("place", self.place), *heads]

    def logits(self, before: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return self.after[before] + self.place[position.clamp(max=63)]

    def outputs(
        self, batch: Batch, needs: frozenset[str] = frozenset(), inputs: torch.Tensor | None = None
    ) -> Outputs:
        read = batch.tokens if inputs is None else inputs
        before = torch.cat([read[:1], read[:-1]])
        logits = self.logits(before, batch.position)
        logp = torch.log_softmax(logits / batch.sampling.temperature, -1)
        on = batch.needed
        chosen = torch.where(on, logp.gather(1, batch.tokens[:, None])[:, 0], 0.0)
        entropy = torch.where(on, -(logp.exp() * logp).sum(-1), 0.0) if "entropy" in needs else None
        heads = {n: torch.where(on[:, None], p[before], 0.0) for n, p in self.heads.items()}
        hidden = logits if "hidden" in needs else None
        return Outputs(chosen, entropy, heads, hidden, lambda h: h)

    @torch.no_grad()
    def score(
        self, batch: Batch, needs: frozenset[str] = frozenset(), inputs: torch.Tensor | None = None
    ) -> Outputs:
        return self.outputs(batch, needs, inputs)

    def grad_accumulate(self) -> None: ...

    def grad_discard(self) -> None: ...

    def publish(self) -> None:
        self.version += 1

    def become(self, other: TablePolicy) -> None:
        self.load_state_dict(other.state_dict())

    follow: Any = Policy.follow

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {n: p.detach().clone() for n, p in self.parameters()}

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, parameter in self.parameters():
            parameter.data.copy_(state[name])


@dataclass
class TableSampler:
    """Samples a `TablePolicy` token by token, each request from its own key."""

    policy: TablePolicy
    longest: int = 6
    beside: tuple[TablePolicy, float] | None = None  # another table, and its share of a geometric mixture

    def mixed_with(self, other: TableSampler, share: float) -> TableSampler:
        return TableSampler(self.policy, self.longest, (other.policy, share))

    def _logits(self, last: int, at: int) -> torch.Tensor:
        where = torch.tensor([last]), torch.tensor([at])
        row = self.policy.logits(*where)[0]
        return row.lerp(self.beside[0].logits(*where)[0], self.beside[1]) if self.beside else row

    async def sample(
        self,
        prompt: Sequence[int] | np.ndarray,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        uniforms = Uniforms(key)
        tokens: list[int] = []
        logps: list[float] = []
        sure: list[float] = []
        cut = False
        stop = self.policy.renderer.stops[0]
        last = int(prompt[-1])
        for i in range(min(params.max_tokens, self.longest)):
            with torch.no_grad():
                row = self._logits(last, len(prompt) + i)
            logp = torch.log_softmax(row / params.temperature, -1)
            sure.append(float(torch.logsumexp(row, -1) - row.mean() - np.log(len(row))))
            last = min(int(torch.searchsorted(logp.exp().cumsum(0), uniforms.next())), len(logp) - 1)
            tokens.append(last)
            logps.append(float(logp[last]))
            cut = watch is not None and watch(last, logps[-1])
            if cut or last == stop:
                break
        end = "end" if tokens[-1] == stop else "cut" if cut else "length"
        found = np.array(sure, np.float32) if certainty else None
        return Sample(
            np.array(tokens, np.int32), np.array(logps, np.float32), end, self.policy.version, found
        )

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        yield

    async def refresh(self) -> None: ...

    async def close(self) -> None: ...


@dataclass
class ScriptedSampler(TableSampler):
    """Gives `replies` in order, to any prompt, with log-probability -1 for every token; `asked` keeps the prompts."""

    policy: TablePolicy = field(default_factory=TablePolicy)
    replies: list[str] = field(default_factory=list)
    asked: list[np.ndarray] = field(default_factory=list)
    ends: bool = True

    async def sample(
        self,
        prompt: Sequence[int] | np.ndarray,
        params: SamplingParams,
        key: int,
        watch: Watch | None = None,
        certainty: bool = False,
    ) -> Sample:
        self.asked.append(np.array(prompt))
        words = self.policy.tokenizer.encode(self.replies.pop(0))
        stop = np.array(self.policy.renderer.stops[:1] if self.ends else [], np.int32)
        tokens = np.concatenate([words, stop]).astype(np.int32)
        sure = np.ones(len(tokens), np.float32) if certainty else None
        end = "end" if self.ends else "length"
        return Sample(tokens, np.full(len(tokens), -1.0, np.float32), end, 0, sure)


def task(number: int = 0, check: Check | None = None, **more: Any) -> Task:
    """A task whose prompt is a few characters, with everything that a recipe may need."""
    known: dict[str, Any] = {
        "answer": "7",
        "reference": "3+4=7",
        "hints": ("add", "3+4"),
        "difficulty": float(number % 3),
    }
    prompt = (Message("user", f"q{number}"),)
    return Task(prompt, check or coin, kind=f"kind{number % 2}", **{**known, **more})


def coin(answer: str) -> Verdict:
    """Right or wrong by a hash of the answer: groups of mixed outcomes from a policy that knows nothing."""
    right = seeds.key("coin", answer) % 2 == 0
    return Verdict(float(right), right, "" if right else "no")


class Halves:
    """A check whose answers are one of two, by a hash of what was said: different words can agree."""

    def __call__(self, answer: str) -> Verdict:
        return coin(answer)

    def read(self, answer: str) -> str:
        return str(seeds.key("half", answer) % 2)


async def check_runner(task: Task, answer: str) -> Verdict:
    return task.check(answer)


def generator(policy: TablePolicy, sampler: Any = None, **params: Any) -> Generator:
    return Generator(
        sampler or TableSampler(policy), policy.renderer, SamplingParams(**{"max_tokens": 6, **params})
    )


def context(
    policy: Any,
    update: Update | None = None,
    auxiliary: Mapping[str, AuxiliaryModel] | None = None,
    **more: Any,
) -> RunContext:
    """That of a run at its start, with a reference and a teacher that are tables as well."""
    learner = Learner(policy, update or Update(), micro_tokens=1 << 20)
    others: dict[str, Any] = {
        name: TablePolicy(seed) for seed, name in enumerate(("reference", "teacher"), 1)
    }
    for name, own in (auxiliary or {}).items():
        if own.source == "copy":
            copy: Any = TablePolicy(0, dict(own.heads))
            others[name] = Learner(copy, Update(lr=own.lr), name, micro_tokens=1 << 20)
    return RunContext(0, None, learner, SamplingParams(max_tokens=6), others, **more)


def play(
    stages: Mapping[str, Any],
    policy: TablePolicy,
    tasks: Sequence[Task],
    samples: int = 4,
    speaker: Generator | None = None,
    others: Mapping[str, Any] | None = None,
) -> list[Group]:
    """Groups as the loop would collect them. `others`: auxiliary models that can be sampled."""
    held = {n: getattr(p, "policy", p) for n, p in (others or {}).items()}
    generators = {n: generator(p) for n, p in held.items() if isinstance(p, TablePolicy)}

    async def together() -> Sequence[Group]:
        group_rollouts = [
            GroupRollout(
                t,
                Request(),
                samples,
                speaker or generator(policy),
                check_runner,
                stages["rollout"],
                stages["reward"],
                seeds.key("toy", i),
                generators=generators,
            )
            for i, t in enumerate(tasks)
        ]
        return await asyncio.gather(*(rollouts.group(stages["group_rollout"]) for rollouts in group_rollouts))

    return list(asyncio.run(together()))


@dataclass
class ToyBatch:
    """What one step of a recipe would be given on small tasks, ready to be differentiated."""

    stages: dict[str, Any]
    context: Any
    signals: list[Signal]

    @property
    def policy(self) -> Any:
        return self.context.policy

    @property
    def objective(self) -> Objective:
        objective: Objective = self.stages["objective"]
        return objective


def toy_batch(
    recipe: str | Recipe,
    settings: Mapping[str, Any] | None = None,
    tasks: int = 4,
    samples: int = 4,
    drift: float = 0.0,
) -> ToyBatch:
    """Rollout, reward, filter and credit of a recipe, carried out on a table policy. `drift`: standard deviation of
    the change of every weight between sampling and the step; 0 is on-policy."""
    recipe = find(recipe) if isinstance(recipe, str) else recipe
    recipe, stages = build(recipe, {**few(recipe), **(settings or {})})
    policy = TablePolicy(0, dict(stages["objective"].heads))
    where = context(policy, auxiliary=recipe.all_auxiliary)
    check = Halves() if recipe.all_defaults.get("unlabelled") else None  # without labels answers must meet
    problems = [task(i, check) for i in range(tasks)]
    groups = play(
        stages, policy, problems, recipe.all_defaults.get("group_size", samples), None, where.auxiliary
    )
    failed = [e.failure for g in groups for e in g.failed]
    assert not failed, failed[0]
    kept = stages["filter"](groups, where)
    signals = where.completed(stages["credit"](kept, where), stages["objective"].reads)
    with torch.no_grad():
        for name, parameter in policy.parameters():
            noise = torch.randn(
                parameter.shape, generator=seeds.torch_generator("drift", name), dtype=torch.float64
            )
            parameter.add_(drift * noise)
    return ToyBatch(stages, where, signals)


def gradient(
    of: ToyBatch, micro_tokens: int = 1 << 20, signals: Sequence[Signal] | None = None
) -> torch.Tensor:
    """The whole gradient as one vector, f64[number of weights]."""
    learner = of.context.learner
    learner.micro_tokens = micro_tokens
    learner.forget()
    learner.accumulate(of.objective, pack(of.signals if signals is None else signals, learner.sampling))
    flat = [
        p.grad.flatten() if p.grad is not None else torch.zeros(p.numel(), dtype=p.dtype)
        for _, p in of.policy.parameters()
    ]
    return torch.cat(flat).clone()
