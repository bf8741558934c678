"""Where a run's processes are: a file such as

[engines]
address = ["http://10.0.0.2:8000", "http://10.0.0.3:8000"]   # servers that somebody started, or
count = 2                                                    # servers that the run starts on this machine
gpus = ["0", "1"]                                            # with count: the GPUs of each
weights = "/shared/etude"                                    # a folder that this machine and all engines see
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from etude.errors import UserError, nearest
from etude.files import read_text
from etude.models.policy import Policy
from etude.sampling.protocol import Sampler
from etude.scale import local
from etude.scale.fleet import Fleet, Member
from etude.scale.inspection import inspect
from etude.scale.sampler import EngineSampler
from etude.scale.server import Server
from etude.scale.weights import write

HERE = ("127.0.0.1", "localhost", "::1")
SHARED = Path("/dev/shm")  # memory that all processes of a Linux machine see as files


@dataclass(frozen=True)
class Engines:
    """What a place says of its engines. `key`: the environment variable that holds their API key. `deadline`: seconds for
    one call; `patience`: seconds until a lost server is given up."""

    address: tuple[str, ...] = ()
    count: int = 0
    gpus: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    weights: str = ""
    key: str = ""
    deadline: float = 600.0
    patience: float = 60.0


@dataclass
class Place:
    """Opened by `sampler`, which may be called for several policies; `close` ends what it started."""

    engines: Engines
    _servers: list[local.Local] = field(default_factory=list)
    _fleet: Fleet | None = None
    _folder: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        return {"engines": {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self.engines).items()}}

    @classmethod
    def read(cls, path: str | Path) -> Place:
        """A file. Raises `UserError` in a sentence for what cannot work."""
        where = Path(path)
        if not where.is_file():
            raise UserError(f"there is no file '{where}' that says where engines are (docs/scale.md)")
        try:
            found = tomllib.loads(read_text(where))
        except tomllib.TOMLDecodeError as error:
            raise UserError(f"{where} is not TOML: {error}") from error
        return cls.of(found, str(where))

    @classmethod
    def of(cls, found: Mapping[str, Any], where: str = "the placement") -> Place:
        for name in found:
            if name != "engines":
                raise UserError(f"{where} has a table [{name}]; known is [engines]")
        given, known = found.get("engines", {}), Engines.__dataclass_fields__
        if not isinstance(given, Mapping):
            raise UserError(f"{where}: engines is a table, as in [engines]")
        for name, value in given.items():
            if name not in known:
                raise UserError(f"{where}: there is no '{name}' in [engines]{nearest(name, known)}")
            default = known[name].default
            kinds = {tuple: (list, tuple), int: (int,), float: (int, float), str: (str,)}[type(default)]
            wrong = isinstance(value, bool) or not isinstance(value, kinds)
            if wrong or (isinstance(default, tuple) and not all(isinstance(v, str) for v in value)):
                wanted = {tuple: "a list of texts", int: "a whole number", float: "a number", str: "a text"}
                raise UserError(f"{where}: engines.{name} is {value!r}; it must be {wanted[type(default)]}")
        read: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items()}
        engines = Engines(**read)
        if bool(engines.address) == bool(engines.count):
            raise UserError(f"{where}: [engines] has either address = [...] or count = 1 or more")
        if engines.count < 0 or engines.deadline <= 0 or engines.patience < 0:
            raise UserError(f"{where}: count, deadline and patience of [engines] are not below 0")
        if engines.gpus and len(engines.gpus) != engines.count:
            raise UserError(
                f"{where}: engines.gpus names {len(engines.gpus)} sets of GPUs for {engines.count} engines"
            )
        for address in engines.address:
            Server(address)  # refuses what is none
        away = [a for a in engines.address if urlsplit(a).hostname not in HERE]
        if away and not engines.weights:
            raise UserError(
                f'{where}: {away[0]} is another machine; name a folder that it and this one see: weights = "/shared/..."'
            )
        return cls(engines)

    @property
    def key(self) -> str | None:
        if not self.engines.key:
            return None
        if not (value := os.environ.get(self.engines.key)):
            raise UserError(
                f"the environment variable {self.engines.key}, which holds the engines' key, is not set"
            )
        return value

    def _server(self, address: str, rows: int = 128) -> Server:
        return Server(address, self.engines.deadline, self.key, rows)

    # ---- for a run ------------------------------------------------------------------------------------

    async def sampler(self, policy: Policy, rows: int, context: int) -> Sampler:
        """A sampler of the policy with at most `rows` requests under way at each server. The first call starts the servers
        that are to be started, and refuses those that cannot be used."""
        if self._fleet is None:
            try:
                self._fleet = await self._open(policy, rows, context)
            except BaseException:
                await self.close()
                raise
        return EngineSampler(policy, self._fleet)

    async def _open(self, policy: Policy, rows: int, context: int) -> Fleet:
        longest = min(context, policy.context)
        folder = self._weights()
        if self.engines.count:
            local.python()  # refused before anything is written
            first = write(policy, folder / "first")
            gpus = self.engines.gpus or (None,) * self.engines.count
            options = ("--max-model-len", str(longest), *self.engines.options)
            for number, own in enumerate(gpus):
                server = self._server(f"http://127.0.0.1:{local.free_port()}", rows)
                log = local.logs() / f"{os.getpid()}-{number}.log"
                self._servers.append(local.Local(server, options, log, own))
                self._servers[-1].start(first)
            await asyncio.gather(*(s.ready() for s in self._servers))
            shutil.rmtree(first, ignore_errors=True)
            members = [Member(s.server, s.revive) for s in self._servers]
        else:
            members = [Member(self._server(address, rows)) for address in self.engines.address]
        fleet = Fleet(members, folder, self.engines.patience)
        await fleet.admit(policy, longest)
        return fleet

    def _weights(self) -> Path:
        """A folder of this process's own below the one that is shared. What a killed process has left in the memory of this
        machine is removed."""
        below = (
            Path(self.engines.weights)
            if self.engines.weights
            else SHARED
            if SHARED.is_dir()
            else Path.home() / ".cache"
        )
        for left in [] if self.engines.weights else below.glob("etude-*-*"):
            if not psutil.pid_exists(int(left.name.split("-")[1])):
                shutil.rmtree(left, ignore_errors=True)
        self._folder = below / f"etude-{os.getpid()}-{id(self) & 0xFFFF:04x}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700 if not self.engines.weights else 0o755)
        except OSError as error:
            raise UserError(
                f"the folder for weights '{below}' cannot be written: {error.strerror}"
            ) from error
        return self._folder

    async def close(self) -> None:
        """Ends the servers that were started here, and removes their weights. May be called twice."""
        if self._fleet is not None:
            await self._fleet.close()
        for server in self._servers:
            server.stop()
        self._servers, self._fleet = [], None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    # ---- for the doctor -------------------------------------------------------------------------------

    async def examine(self) -> list[str]:
        """What is wrong with this place, a sentence each; nothing where a run may begin."""
        found: list[str] = []
        if self.engines.count:
            with _noted(found):
                local.python()
        with _noted(found):
            self._weights().rmdir()
        self._folder = None
        servers: list[Server] = []
        with _noted(found):
            servers = [self._server(address) for address in self.engines.address]
        for problems in await asyncio.gather(*(inspect(server) for server in servers)):
            found += problems
        for server in servers:
            await server.close()
        return found


class _noted(suppress):
    """Keeps what a `UserError` says."""

    def __init__(self, found: list[str]) -> None:
        super().__init__(UserError)
        self.found = found

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        done = bool(super().__exit__(kind, error, trace))
        if done and error is not None:
            self.found.append(str(error))
        return done
