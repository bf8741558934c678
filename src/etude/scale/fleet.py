"""Several servers that hold the same weights: who is asked, what happens when one is lost, how new weights reach all.

A server is asked only while it is known to hold the weights that are wanted: after every push its label is read back, and a
text is scored on both sides. A lost one leaves, is started again where it is ours, is given the weights, and returns.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from etude.errors import UserError
from etude.models.policy import Policy
from etude.sampling.protocol import Unanswered
from etude.scale.inspection import inspect, refuse
from etude.scale.server import Lost, Server
from etude.scale.weights import canary, scored, write
from etude.types import Array

TRIES = 3  # servers asked for one reply
GAP = 0.3  # nats: mean difference of log-probabilities between the two sides; bfloat16 has been measured at 0.06 to 0.10
MOVED = 1e-3  # nats: where the policy's canary moved so much, an engine's must have moved
T = TypeVar("T")


@dataclass
class Member:
    """A server with what is known of it. `revive` starts it again where it is ours, and says whether it did."""

    server: Server
    revive: Callable[[Path], Awaitable[bool]] | None = None
    ready: bool = False  # holds the weights that are wanted
    last: Array | None = None  # its scores of the canary
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass
class Fleet:
    """`folder`: seen by this process and by all servers under the same path. `patience`: seconds until a lost server that
    somebody else started is given up."""

    members: list[Member]
    folder: Path
    patience: float = 60.0
    name: str = field(default_factory=lambda: secrets.token_hex(4))  # no two runs call their weights alike
    label: str = ""  # of the weights that are wanted
    gap: float = 0.0  # mean difference on the canary at the last push, nats
    longest: int = 0  # tokens of the longest sequence that all serve; 0 before `admit`
    _owners: int = 0
    _wanted: tuple[Array, Array] | None = None  # the canary and its scores by the policy

    async def admit(self, policy: Policy, context: int) -> None:
        """Refuses, in one sentence each, servers that cannot give what training needs."""
        vocabulary = int(policy.config["vocab_size"])
        found = await asyncio.gather(*(inspect(m.server, context, vocabulary) for m in self.members))
        refuse([sentence for problems in found for sentence in problems])
        self.longest = min(await asyncio.gather(*(m.server.longest() for m in self.members)))

    def owner(self) -> int:
        """A number for one more policy that is sampled here."""
        self._owners += 1
        return self._owners

    async def refresh(self, policy: Policy, owner: int) -> None:
        """All servers hold the weights that the policy has now afterwards, or are out. Raises `UserError` where none is
        left."""
        label, moved = f"{self.name}.{owner}.{policy.version}", False
        if label != self.label:
            for member in self.members:
                member.ready = False
            before, tokens = self._wanted, canary(policy)
            self._wanted = tokens, scored(policy, tokens)
            moved = before is not None and bool(np.abs(self._wanted[1] - before[1]).max() > MOVED)
            write(policy, self.folder / label)
            self._forget(keep={label, self.label})
            self.label = label
        said = await self._all_back(0.0, moved)
        if not any(m.ready for m in self.members):
            said = await self._all_back(self.patience, moved)
        if not any(m.ready for m in self.members):
            raise UserError(f"no engine can be sampled from: {'; '.join(said)}")

    async def ask(self, key: int, question: Callable[[Server], Awaitable[T]]) -> T:
        """The answer of a server that `key` chooses among those that are ready; of another one where it is lost. Raises
        `Unanswered` after `TRIES`."""
        said: list[str] = []
        for number in range(TRIES):
            ready = [m for m in self.members if m.ready]
            if not ready:
                said += await self._all_back(self.patience)
                ready = [m for m in self.members if m.ready]
            if not ready:
                break
            member = ready[(key + number) % len(ready)]
            try:
                return await question(member.server)
            except Lost as error:
                member.ready = False
                said.append(str(error))
        raise Unanswered(f"asked {TRIES} times: {'; '.join(dict.fromkeys(said))}")

    async def _all_back(self, patience: float, moved: bool = False) -> list[str]:
        """Brings all servers that are not ready back; why not, for each that is not."""
        said = await asyncio.gather(*(self._back(m, patience, moved) for m in self.members))
        return [sentence for sentence in said if sentence]

    async def _back(self, member: Member, patience: float, moved: bool) -> str:
        """Brings a server back, with the weights that are wanted; why not, "" where it is back."""
        async with member.lock:
            if member.ready:
                return ""
            place = self.folder / self.label
            end = asyncio.get_running_loop().time() + patience
            while not await member.server.healthy():
                try:
                    if member.revive is not None and await member.revive(place):
                        member.last = None
                        continue
                except UserError as error:
                    return str(error)
                if asyncio.get_running_loop().time() >= end:
                    return f"{member.server.address} is not well (waited {patience:g} s)"
                await asyncio.sleep(0.5)
            return await self._push(member, place, moved)

    async def _push(self, member: Member, place: Path, moved: bool) -> str:
        """Gives a server the weights in `place` and proves that it has them; why not, "" where it has."""
        assert self._wanted is not None
        tokens, ours = self._wanted
        try:
            await member.server.load(str(place), self.label)
            theirs = np.array(await member.server.score(tokens.tolist()), np.float32)
        except (Lost, UserError) as error:
            return str(error)
        gap = float(np.abs(theirs - ours).mean())
        if not gap <= GAP:
            return (
                f"{member.server.address} gives other log-probabilities than the trainer after it loaded {self.label} "
                f"(mean difference {gap:.3f} nats on {len(ours)} tokens; at most {GAP} is rounding)"
            )
        if moved and member.last is not None and np.array_equal(member.last, theirs):
            return f"{member.server.address} still computes with the weights that it had before {self.label}"
        member.last, member.ready, self.gap = theirs, True, gap
        return ""

    def _forget(self, keep: set[str]) -> None:
        for old in self.folder.iterdir() if self.folder.is_dir() else ():
            if old.name.startswith(self.name) and old.name not in keep:
                shutil.rmtree(old, ignore_errors=True)

    async def close(self) -> None:
        for member in self.members:
            await member.server.close()
        self._forget(keep=set())
