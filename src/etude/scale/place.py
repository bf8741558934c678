"""Where a run's processes are: a file such as

[engines]
address = ["http://10.0.0.2:8000", "http://10.0.0.3:8000"]   # servers that somebody started, or
count = 2                                                    # servers that the run starts on this machine
gpus = ["0", "1"]                                            # with count: the GPUs of each
weights = "/shared/etude"                                    # a folder that this machine and all engines see

[trainer]
ranks = 2                                                    # processes of this machine that share the model
gpus = ["0", "1"]                                            # the GPU of each
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psutil
import torch

from etude.errors import UserError, nearest
from etude.files import read_text
from etude.models.device import chosen
from etude.models.policy import Policy
from etude.sampling.protocol import Sampler
from etude.scale import local
from etude.scale.fleet import Fleet, Member
from etude.scale.inspection import inspect
from etude.scale.ranks import Ranks
from etude.scale.sampler import EngineSampler
from etude.scale.server import Server
from etude.scale.weights import write

T = TypeVar("T")
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

    @property
    def there(self) -> bool:
        return bool(self.address or self.count)


@dataclass(frozen=True)
class Trainer:
    """What a place says of the processes that share the model. `gpus`: the CUDA device of each, by its number; `backend`:
    "nccl" on GPUs, "gloo" on the CPU; `deadline`: seconds for what one waits for of the others."""

    ranks: int = 1
    gpus: tuple[str, ...] = ()
    backend: str = ""
    deadline: float = 600.0


@dataclass
class Place:
    """Opened by `sampler`, which may be called for several policies, and by `meet`; `close` ends what they started."""

    engines: Engines = field(default_factory=Engines)
    trainer: Trainer = field(default_factory=Trainer)
    ranks: Ranks | None = None  # while they are there
    _servers: list[local.Local] = field(default_factory=list)
    _fleet: Fleet | None = None
    _folder: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        tables = {"engines": self.engines, "trainer": self.trainer}
        return {
            name: {k: list(v) if isinstance(v, tuple) else v for k, v in vars(table).items()}
            for name, table in tables.items()
            if table != type(table)() or (name == "trainer" and not self.samples)
        }

    @property
    def samples(self) -> bool:
        """Whether engines sample."""
        return self.engines.there

    @property
    def count(self) -> int:
        """Processes that share the model."""
        return self.trainer.ranks

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
            if name not in ("engines", "trainer"):
                raise UserError(f"{where} has a table [{name}]; known are [engines] and [trainer]")
        if not found:
            raise UserError(f"{where} is empty; it has a table [engines], or [trainer], or both")
        place = cls(_read(Engines, found, "engines", where), _read(Trainer, found, "trainer", where))
        if "engines" in found:
            _sensible(place.engines, where)
        own = place.trainer
        if own.ranks < 1 or own.deadline <= 0:
            raise UserError(f"{where}: ranks and deadline of [trainer] are above 0")
        if own.backend not in ("", "gloo", "nccl"):
            raise UserError(f"{where}: trainer.backend is '{own.backend}'; it must be gloo or nccl")
        if own.gpus and len(own.gpus) != own.ranks:
            raise UserError(f"{where}: trainer.gpus names {len(own.gpus)} GPUs for {own.ranks} ranks")
        for gpu in own.gpus:
            if not gpu.isdecimal():
                raise UserError(f"{where}: trainer.gpus has '{gpu}'; it must be a GPU's number")
        return place

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

    def meet(self, device: str) -> Ranks | None:
        """The ranks that share the model on `device`, which the first call starts; None where this process has it alone.
        `UserError` where they cannot work."""
        own = self.trainer
        if own.ranks == 1:
            return None
        if self.ranks is None:
            if said := unfit(own, device):
                raise UserError(said)
            made = Ranks(own.ranks, own.gpus, "nccl" if device == "cuda" else "gloo", own.deadline)
            made.start()
            self.ranks = made
        return self.ranks

    async def close(self) -> None:
        """Ends what was started here, and removes the weights that engines were given. May be called twice."""
        if self.ranks is not None:
            self.ranks.close()
            self.ranks = None
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
        if self.trainer.ranks > 1 and (said := unfit(self.trainer, chosen("auto"))):
            found.append(said)
        if not self.samples:
            return found
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


def _read(table: type[T], found: Mapping[str, Any], called: str, where: str) -> T:
    """A table of the file, every value of the right kind."""
    given: Any = found.get(called, {})
    known: dict[str, Any] = table.__dataclass_fields__  # type: ignore[attr-defined]
    if not isinstance(given, Mapping):
        raise UserError(f"{where}: {called} is a table, as in [{called}]")
    for name, value in given.items():
        if name not in known:
            raise UserError(f"{where}: there is no '{name}' in [{called}]{nearest(name, known)}")
        default = known[name].default
        kinds = {tuple: (list, tuple), int: (int,), float: (int, float), str: (str,)}[type(default)]
        wrong = isinstance(value, bool) or not isinstance(value, kinds)
        if wrong or (isinstance(default, tuple) and not all(isinstance(v, str) for v in value)):
            wanted = {tuple: "a list of texts", int: "a whole number", float: "a number", str: "a text"}
            raise UserError(f"{where}: {called}.{name} is {value!r}; it must be {wanted[type(default)]}")
    return table(**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})


def _sensible(engines: Engines, where: str) -> None:
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


def unfit(trainer: Trainer, device: str) -> str:
    """Why ranks cannot share a model on this device; "" where they can."""
    if find_spec("cloudpickle") is None:
        return "[trainer] ranks need cloudpickle; run: pip install 'etude[remote]'"
    if os.name == "nt":
        return "[trainer] ranks need Linux or macOS"
    if device not in ("cpu", "cuda"):
        return f"[trainer] ranks share a model on the CPU or on CUDA devices, and run.device is '{device}'"
    wanted = "nccl" if device == "cuda" else "gloo"
    if trainer.backend not in ("", wanted):
        return f"trainer.backend is '{trainer.backend}', and on {device} it is '{wanted}'; set run.device, or leave it out"
    if device == "cuda":
        there = torch.cuda.device_count()
        asked = [int(g) for g in trainer.gpus] or list(range(trainer.ranks))
        if max(asked) >= there or len(set(asked)) < len(asked):
            return f"[trainer] has {trainer.ranks} ranks on the GPUs {asked}, each on one of its own, and PyTorch finds {there}"
    return ""


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
