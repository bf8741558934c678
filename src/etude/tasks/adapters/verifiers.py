"""Environments of `verifiers` (0.4) as tasks: `verifiers:my_env`, and `verifiers:my_env,num_tasks=50` with settings of its task set.

Its `Env` runs as it is, on agents of ours: what it says to its agent is the observation, what the policy replies is the agent's turn,
and the rewards of its task and of its `finalize` are the verdict. So conversations of any length work. What needs a program in a
container, tool servers, or several agents that are not one policy, is refused in a sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from etude.errors import UserError
from etude.tasks.adapters.absent import Adapter, Catalogued
from etude.tasks.check import NoText
from etude.tasks.files import Listed
from etude.tasks.source import Info
from etude.tasks.spec import Param
from etude.types import Message, Task, Verdict

ADAPTER = Adapter(
    "verifiers",
    "verifiers",
    "verifiers",
    "Environments and task sets of verifiers, by verifiers:NAME (extra: verifiers)",
    (
        Param(
            "env", str, "", "the id of an installed task set; all further parameters are settings of its own"
        ),
        Param("tasks", int, 200, "tasks that are read from it at most"),
        Param("turns", int, 50, "turns allowed"),
        Param("full", float, 1.0, "the sum of its rewards that counts as 1, and as right"),
        Param("eval_share", float, 0.2, "share of the tasks set aside for evaluation"),
    ),
)


@dataclass(frozen=True)
class Play:
    """Makes a fresh episode of one task. `data`: the task as JSON."""

    env: str
    settings: str
    data: str
    turns: int
    full: float

    def __call__(self, seed: int = 0) -> Any:  # its methods are coroutines, which the protocol cannot say
        """A new episode; what the environment leaves to chance is its own."""
        return Conducted(self)


class Conducted:
    """One episode: `etude.types.Environment`, asynchronous. The environment's `run` is a coroutine beside the rollout's; each waits
    for the other's words."""

    def __init__(self, plan: Play) -> None:
        import verifiers.v1 as vf

        self._plan, self._env = plan, environment(plan.env, plan.settings)
        kind = type(self._env.taskset).task_type()
        self._task = kind(kind.data_type().model_validate_json(plan.data), self._env.taskset.config.task)
        self.turns, self._ended = 0, False
        self._said: asyncio.Queue[str] = (
            asyncio.Queue()
        )  # the environment's words; the end of its run says nothing more
        self._replies: asyncio.Queue[str] = asyncio.Queue()
        self._running: asyncio.Task[None] | None = None
        self._traces: list[Any] = []
        self._vf = vf

    async def observe(self) -> str:
        """What the environment says beyond the task's prompt."""
        self._running = asyncio.ensure_future(self._env.run(self._task, _Agents(self)))
        said = await self._next()
        if said is None:
            raise RuntimeError(f"'{self._plan.env}' ended before its agent was asked")
        return said

    async def act(self, text: str) -> tuple[str, Verdict | None]:
        """The reply is the agent's turn. Raises what the environment raises."""
        self._replies.put_nowait(text)
        said = await self._next()
        return ("", await self._judged()) if said is None else (said, None)

    async def close(self) -> None:
        """Ends a run that was left."""
        if self._running is not None and not self._running.done():
            self._running.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await self._running

    # ---- the agent's side -----------------------------------------------------------------------------

    def trace(self, task: Any) -> Any:
        """A new trace of an agent's run on a task."""
        vf = self._vf
        data = vf.TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
        made = vf.Trace(task=data, agent=vf.AgentInfo(config=vf.AgentConfig()))
        self._traces.append((task, made))
        for message in (*_system(task.data), *_asked(task.data)):
            self.note(made, message)
        return made

    def note(self, trace: Any, message: Any, sampled: bool = False) -> None:
        """Appends a message to a trace."""
        node = self._vf.MessageNode(
            message=message, sampled=sampled, parent=len(trace.nodes) - 1 if trace.nodes else None
        )
        trace.nodes.append(node)

    async def turn(self, trace: Any, said: str | None) -> Any:
        """The policy's reply to what the environment says; a terminated segment after the last turn that is allowed."""
        vf = self._vf
        if said is not None:
            self.note(trace, vf.UserMessage(content=said))
        if self._ended or self.turns >= self._plan.turns:
            self._ended = True
            return vf_segment([], True)
        self.turns += 1
        self._said.put_nowait(said or "")
        reply = vf.AssistantMessage(content=await self._replies.get())
        self.note(trace, reply, sampled=True)
        return vf_segment([reply], False)

    # ---- both -----------------------------------------------------------------------------------------

    async def _next(self) -> str | None:
        """What the environment says next; None where its run has come to its end."""
        assert self._running is not None
        waiting = asyncio.ensure_future(self._said.get())
        await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        self._running.result()  # raises what the run raised
        return None

    async def _judged(self) -> Verdict:
        """The rewards of the task for its trace, then those of the environment's `finalize`."""
        vf = self._vf
        for task, trace in self._traces:
            trace.is_completed = trace.ok = True
            await task.score(trace)
        first = self._traces[0][1]
        episode = vf.Episode(env=vf.EnvInfo(id=self._env.config.env_id), task=first.task)
        episode.traces.extend(trace for _, trace in self._traces)
        await self._env.finalize(self._task, episode)
        share = min(max(float(first.reward) / self._plan.full, 0.0), 1.0)
        scores = ", ".join(f"{name} {r.score:g}" for name, r in first.rewards.items() if r is not None)
        return Verdict(share, share == 1, "" if share == 1 else f"Rewards: {scores or 'none'}.")


class _Agents:
    """What an environment calls its agents: one seat, which the policy takes."""

    def __init__(self, episode: Conducted) -> None:
        self._episode = episode

    def __getattr__(self, name: str) -> _Agent:
        if name.startswith("_"):
            raise AttributeError(name)
        return _Agent(self._episode)


class _Agent:
    def __init__(self, episode: Conducted) -> None:
        self._episode = episode
        self.trainable = True

    async def run(self, task: Any) -> Any:
        """One turn on the task's prompt."""
        trace = self._episode.trace(task)
        await self._episode.turn(trace, None)
        return trace

    @contextlib.asynccontextmanager
    async def interaction(self, task: Any) -> AsyncIterator[_Interaction]:
        """The run held open, turn by turn."""
        yield _Interaction(self._episode, self._episode.trace(task))


class _Interaction:
    def __init__(self, episode: Conducted, trace: Any) -> None:
        self._episode, self.trace = episode, trace

    async def turn(self, message: str | None = None) -> Any:
        return await self._episode.turn(self.trace, message)


def vf_segment(messages: list[Any], terminated: bool) -> Any:
    """What an interaction's turn returns."""
    from verifiers.v1.agent import Segment

    return Segment(messages=messages, terminated=terminated)


@lru_cache(maxsize=16)
def environment(env: str, settings: str) -> Any:
    """The environment with these settings of its task set (JSON). Raises UserError for what is not there, or cannot be played here."""
    from verifiers.v1.utils.loaders import load_environment, resolve_env_config

    where = f"task 'verifiers:{env}'"
    try:
        found = load_environment(resolve_env_config({"taskset": {"id": env, **json.loads(settings)}}))
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise UserError(f"{where}: {': '.join(lines[:3]) or type(error).__name__}"[:400]) from None
    kind = type(found.taskset).task_type()
    if kind.toolsets(found.taskset.config.task) or found.taskset.toolsets(found.taskset.config):
        raise UserError(
            f"{where} brings tool servers, which are not played here; give the policy tools of its own"
        )
    if kind.NEEDS_CONTAINER:
        raise UserError(f"{where} runs in a container, which is not played here")
    if len(found._agent_specs) > 1:
        raise UserError(
            f"{where} has several agents ({', '.join(found._agent_specs)}); only one can be the policy here"
        )
    return found


def _system(data: Any) -> list[Any]:
    import verifiers.v1 as vf

    return [vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []


def _asked(data: Any) -> list[Any]:
    import verifiers.v1 as vf

    if isinstance(data.prompt, str):
        return [vf.UserMessage(content=data.prompt)]
    return list(data.prompt or ())


def _unscored(task: Any, env: str) -> str:
    """A sentence where a reward of the task needs what is not there."""
    import inspect

    for fn in task.hooks("reward"):
        given = inspect.signature(fn).parameters.get("runtime")
        if given is not None and given.default is inspect.Parameter.empty:
            return f"task 'verifiers:{env}': its reward '{fn.__name__}' looks into a container, which is not played here"
    return ""


def source(name: str, given: Mapping[str, Any] | None = None, called: str | None = None) -> Any:
    """The tasks of an environment as a source. Raises UserError."""
    if not given:
        return Catalogued(ADAPTER)
    known = {p.name for p in ADAPTER.params}
    own = ADAPTER.read({k: v for k, v in given.items() if k in known}, "env")
    settings = json.dumps({k: v for k, v in given.items() if k not in known}, sort_keys=True)
    if own["tasks"] < 1 or own["turns"] < 1 or not own["full"] > 0:
        raise UserError(f"task '{name}': tasks, turns and full must be more than 0")
    from verifiers.v1.types import content_text

    loaded = environment(own["env"], settings)
    tasks: list[Task] = []
    for task in loaded.taskset.take(own["tasks"]):
        if not tasks and (why := _unscored(task, own["env"])):
            raise UserError(why)
        data = task.data.model_dump_json()
        messages = [(m.role, content_text(m.content)) for m in (*_system(task.data), *_asked(task.data))]
        if not messages or messages[-1][0] == "system":
            messages.append(("user", ""))
        tasks.append(
            Task(
                tuple(Message(role, text) for role, text in messages),
                NoText(called or name),
                kind=called or name,
                environment=Play(own["env"], settings, data, own["turns"], own["full"]),
                meta={"source": called or name, "environment_key": [own["env"], data], "feedback": "hint"},
            )
        )
    line = f"{len(tasks)} tasks of '{own['env']}' of verifiers"
    info = Info(called or name, "environment", line, ADAPTER.params, {}, ADAPTER.carries)
    return Listed(called or name, tasks, own["eval_share"], info=info)
