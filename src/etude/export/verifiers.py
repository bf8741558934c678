"""A task set of etude as an environment of verifiers (0.4, the extra `verifiers`), so that it trains under prime-rl too. Its id is
`etude-verifiers`:

    [env.taskset]
    id = "etude-verifiers"
    tasks = "house:level=1"

Answers are checked, and worlds are played, as in etude. `part="eval"` gives the tasks that etude holds out; those of "train" never
hold one of them. Its agent is a chat without tools, in the process of the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Literal

import httpx
import verifiers.v1 as vf
from pydantic import Field
from verifiers.v1.dialects.chat import message_to_wire

from etude import seeds
from etude.evaluate.run import EVAL_SEED
from etude.rollout import turns
from etude.rollout.attempts import below
from etude.tasks import TaskSet, load
from etude.tasks.isolate import Pool
from etude.tasks.settled import settled
from etude.types import Request, Task, Verdict

TIMEOUT = 600.0  # seconds for one reply


class EtudeData(vf.TaskData):
    """Which of etude's tasks this is: number `number` of a part of `tasks`."""

    tasks: str
    part: Literal["train", "eval"]
    number: int
    held: int
    seed: int
    answer: str | None = None


class EtudeTask(vf.Task[EtudeData]):
    """Its reward is recorded by the environment."""


class EtudeConfig(vf.TasksetConfig):
    tasks: str = "house"
    """As `etude train --tasks` takes it."""
    part: Literal["train", "eval"] = "train"
    num_tasks: int = Field(1000, ge=1)
    """How many tasks."""
    held: int = Field(200, ge=0)
    """How many are held out: all of "eval", none of "train"."""
    seed: int = 0
    """Of the training tasks' order."""


class EtudeTaskset(vf.Taskset[EtudeTask, EtudeConfig]):
    def load(self) -> Iterator[EtudeTask]:
        c = self.config
        most = min(c.num_tasks, c.held) if c.part == "eval" else c.num_tasks
        for number in range(most):
            asked = {"tasks": c.tasks, "part": c.part, "number": number, "held": c.held, "seed": c.seed}
            problem = task_of(**asked)
            said = problem.prompt
            if problem.environment is not None:
                said = below(said, settled(problem.environment(_luck(problem)).observe()))
            system = [m.content for m in said if m.role == "system"]
            rest = [m for m in said if m.role != "system"]
            kinds = {"user": vf.UserMessage, "assistant": vf.AssistantMessage}
            prompt: Any = (
                rest[0].content if len(rest) == 1 else [kinds[m.role](content=m.content) for m in rest]
            )
            yield EtudeTask(
                EtudeData(
                    name=problem.kind,
                    prompt=prompt,
                    system_prompt="\n\n".join(system) or None,
                    answer=problem.answer,
                    **asked,
                ),
                c.task,
            )


class EtudeHarness(vf.Harness[vf.HarnessConfig]):
    """A chat: the conversation goes to the model, its reply ends the segment."""

    APPENDS_SYSTEM_PROMPT = True
    SUPPORTS_RESUME = True
    EXECUTES_CODE = False
    NEEDS_CONTAINER = False

    async def launch(
        self,
        ctx: Any,
        trace: Any,
        runtime: Any,
        endpoint: str,
        secret: str,
        mcp_urls: dict[str, str],
        data: Any,
    ) -> vf.ProgramResult:
        system, prompt = self.resolve_prompt(data)
        messages: list[Any] = [vf.SystemMessage(content=system)] if system else []
        messages += [vf.UserMessage(content=prompt)] if isinstance(prompt, str) else list(prompt or ())
        asked = {"model": ctx.model, "messages": [message_to_wire(m) for m in messages]}
        async with httpx.AsyncClient(timeout=TIMEOUT) as client:
            answer = await client.post(
                f"{endpoint.rstrip('/')}/chat/completions",
                json=asked,
                headers={"Authorization": f"Bearer {secret}"},
            )
        return vf.ProgramResult(0 if answer.is_success else 1, "", "" if answer.is_success else answer.text)


class EtudeEnvConfig(vf.EnvConfig):
    agent: vf.AgentConfig = vf.AgentConfig(runtime=vf.SubprocessConfig())
    """The policy. Nothing of it runs in its box."""


class EtudeEnv(vf.Env[EtudeEnvConfig]):
    async def run(self, task: Any, agents: Any) -> None:
        data = task.data
        problem = task_of(data.tasks, data.part, data.number, data.held, data.seed)
        verdict: Verdict | None = None
        world = None if problem.environment is None else problem.environment(_luck(problem))
        try:
            if world is not None:
                await turns.observe(world)  # the prompt holds it already
            async with agents.agent.interaction(task) as talk:
                segment = await talk.turn()
                while not segment.terminated:
                    if world is None:
                        verdict = await _pool().check(problem.check, segment.last_reply)
                        break
                    said, verdict = await turns.act(world, segment.last_reply)
                    if verdict is not None:
                        break
                    segment = await talk.turn(said)
        finally:
            if world is not None:
                await turns.close(world)
        talk.trace.record_reward("reward", verdict.reward if verdict else 0.0)
        talk.trace.record_metric("correct", float(bool(verdict and verdict.correct)))


def task_of(tasks: str, part: str, number: int, held: int, seed: int) -> Task:
    """Task `number` of a part."""
    chosen, examined = _task_set(tasks, held)
    return examined[number] if part == "eval" else chosen.draw(Request(), number, seed)


@lru_cache(maxsize=8)
def _task_set(tasks: str, held: int) -> tuple[TaskSet, list[Task]]:
    chosen = load(tasks)
    return chosen, chosen.holdout(held, EVAL_SEED)


@lru_cache(maxsize=1)
def _pool() -> Pool:
    return Pool()


def _luck(problem: Task) -> int:
    """What an environment leaves to chance is the same for every attempt, as its first words stand in the prompt."""
    return seeds.key("verifiers", problem.key)
