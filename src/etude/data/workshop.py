"""What a recipe of data works with: tasks, models that write, checks, and keyed randomness."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from etude import seeds
from etude.data.filters import Sieve
from etude.data.items import Item, messages
from etude.errors import UserError
from etude.evaluate.likelihood import reference_logp
from etude.evaluate.run import attempt, hold_out, unrewarded
from etude.event_loop import run as run_coroutine
from etude.models.policy import Policy
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.rollout.writers import RemoteModel
from etude.sampling.engine import sampler_for
from etude.tasks import TaskSet
from etude.tasks.check import Unjudged
from etude.tasks.isolate import Pool
from etude.tools.kit import Kit
from etude.train.setup import task_set
from etude.types import Array, Episode, Message, SamplingParams, Task

HELD = 200  # problems of a generator that nothing is made of


@dataclass(frozen=True)
class Scribe:
    """A model that writes: a local one, or one behind an OpenAI-compatible address. `name`: as the card tells it."""

    name: str
    generator: Generator | None = None
    remote: RemoteModel | None = None
    ends: Counter[tuple[str, int]] = field(default_factory=Counter)  # replies of a local model: (stop, limit)

    async def say(self, said: Sequence[Message], params: SamplingParams, key: int) -> str:
        if self.remote is not None:
            return await self.remote(said, params, key)
        assert self.generator is not None
        tokens = self.generator.renderer.prompt(list(said))
        room = self.generator.limit - len(tokens)
        if room < 1:
            raise UserError(
                f"a prompt of {len(tokens)} tokens does not fit into what {self.name} reads; show fewer examples"
            )
        fitting = replace(params, max_tokens=min(params.max_tokens, room))
        sample = await self.generator.sampler.sample(tokens, fitting, key)
        self.ends[sample.stop, fitting.max_tokens] += 1
        return self.generator.renderer.decode(sample.tokens)


@dataclass
class Workshop:
    """`scribes`: "policy", and "teacher" where there is one. `wanted`: how many items."""

    spec: str
    tasks: TaskSet
    scribes: Mapping[str, Scribe]
    policy: Policy | None
    pool: Pool
    params: SamplingParams
    wanted: int
    seed: int
    sieve: Sieve = field(default_factory=lambda: Sieve([]))
    held: list[Task] = field(default_factory=list)
    kit: Kit | None = None  # the tools of run.tools

    def scribe(self, who: str) -> Scribe:
        """UserError where nobody of that name is there."""
        if who not in self.scribes:
            option = "--teacher" if who == "teacher" else "--model"
            raise UserError(f"this recipe asks a second writer; name one by {option}")
        return self.scribes[who]

    @property
    def own(self) -> Policy:
        if self.policy is None:
            raise UserError("this recipe reads the model's own probabilities; name a local model by --model")
        return self.policy

    @cached_property
    def generator(self) -> Generator:
        generator = self.scribe("policy").generator
        if generator is None:
            raise UserError("this recipe samples the model itself; name a local model by --model")
        return generator

    def drawn(self, number: int) -> list[Task]:
        """At most so many different tasks: of files any of their rows, of generators none of those held out."""
        if (everything := self.tasks.examined()) is not None:
            order = self.random("drawn").permutation(len(everything))
            return [everything[i] for i in order[:number]]
        return self.tasks.different(number, self.seed)

    def attempts(
        self, tasks: Sequence[Task], samples: int, seed: int = 0, **params: Any
    ) -> list[list[Episode]]:
        """Checked attempts of the policy at each task; those whose check failed with an error are left out."""
        generator = replace(self.generator, params=replace(self.params, **params))
        checks = checks_in(self.pool, generator.sampler, {})
        key = seeds.key(self.seed, "data", seed)
        groups = run_coroutine(attempt(generator, checks, tasks, samples, key, reward=unrewarded))
        limit = generator.params.max_tokens
        self.scribe("policy").ends.update((e.stop, limit) for g in groups for e in g.episodes)
        return [list(g.episodes) for g in groups]

    def said(
        self, prompts: Sequence[Sequence[Message]], why: str, who: str = "policy", **params: Any
    ) -> list[str]:
        """One reply to each prompt. `why` names the random streams."""
        scribe, how = self.scribe(who), replace(self.params, **params)

        async def everything() -> list[str]:
            replies: list[Awaitable[str]] = [
                scribe.say(prompt, how, seeds.key(self.seed, "data", why, who, i))
                for i, prompt in enumerate(prompts)
            ]
            return list(await asyncio.gather(*replies))

        return run_coroutine(everything())

    def continued(
        self, begun: Sequence[tuple[Task, str]], why: str, who: str = "policy", **params: Any
    ) -> list[str]:
        """How a local model goes on after each beginning of a reply; without the beginning. `why` names the random streams."""
        scribe = self.scribe(who)
        generator = scribe.generator
        if generator is None:
            raise UserError(f"this recipe goes on where a reply stopped; {scribe.name} must be a local model")
        how, sampler, renderer = replace(self.params, **params), generator.sampler, generator.renderer

        async def one(number: int, task: Task, text: str) -> str:
            tokens = np.concatenate([renderer.prompt(list(task.prompt)), renderer.tokenizer.encode(text)])
            room = generator.limit - len(tokens)
            if room < 1:
                return ""
            fitting = replace(how, max_tokens=min(how.max_tokens, room))
            key = seeds.key(self.seed, "data", why, who, number)
            sample = await sampler.sample(tokens.astype(np.int32), fitting, key)
            scribe.ends[sample.stop, fitting.max_tokens] += 1
            return renderer.decode(sample.tokens)

        async def everything() -> list[str]:
            return list(await asyncio.gather(*(one(i, *pair) for i, pair in enumerate(begun))))

        return run_coroutine(everything())

    def judged(self, pairs: Sequence[tuple[Task, str]]) -> list[bool]:
        """Whether each text is right, by its task's check. A check that fails with an error says no."""

        async def one(task: Task, text: str) -> bool:
            try:
                return (await self.pool.check(task.check, text)).correct
            except Exception:
                return False

        async def everything() -> list[bool]:
            return list(await asyncio.gather(*(one(*pair) for pair in pairs)))

        return run_coroutine(everything())

    def losses(self, items: Sequence[Item]) -> list[Array]:
        """float32[n] of each item: the policy's surprise in nats at each token of what is imitated."""
        return losses(self.own, items)

    @property
    def cut_off(self) -> str:
        """A sentence where a tenth of the replies or more ended at the length limit; else empty."""
        limit = self.params.max_tokens  # recipes have shorter ones for parts of replies
        ends = Counter[str]()
        for scribe in self.scribes.values():
            ends.update({stop: n for (stop, at), n in scribe.ends.items() if at == limit})
        share = ends["length"] / max(1, ends.total())
        return f"{share:.0%} of the replies were cut off at run.max_tokens={limit}" if share >= 0.1 else ""

    def random(self, *name: object) -> np.random.Generator:
        return seeds.generator(self.seed, "data", *name)


def losses(policy: Policy, items: Sequence[Item]) -> list[Array]:
    """As `Workshop.losses`, of any policy."""
    tasks = [Task(tuple(messages(item)), Unjudged(), reference=item.text) for item in items]
    return [-row for row in reference_logp(policy, tasks)]


def examined(against: str) -> list[Task]:
    """What a data set may not ask: all tasks of a file, or the held-out problems of a generator."""
    if not against:
        return []
    found = task_set(against)
    return found.examined() or hold_out(found, HELD)


def scribe(where: str, policy: Policy | None, params: SamplingParams, rows: int) -> Scribe:
    """A writer by name: an address http://HOST/v1#MODEL, or the loaded `policy`."""
    if policy is None:
        return Scribe(where, remote=RemoteModel(where))
    made = Generator(sampler_for(policy, rows), policy.renderer, params, where, policy.context)
    return Scribe(where, made)
