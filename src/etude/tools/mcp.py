"""The tools of an MCP server (Model Context Protocol, by the client library `mcp`), over its standard input and output.

The servers live in an event loop of their own, so that the run's never waits for them. An episode that calls a tool has a
server of its own from then on: what a server keeps is the episode's.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import threading
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from etude.errors import UserError
from etude.tools.tool import Tool, ToolError
from etude.types import Task

START_SECONDS = 60.0


class McpServer:
    """`mcp:COMMAND`: the command, with its arguments, starts a server. UserError where it gives no tools."""

    def __init__(self, command: str) -> None:
        try:
            import mcp  # noqa: F401 - asked for here, not in the first episode
        except ImportError:
            raise UserError("tools of an MCP server need mcp; pip install 'etude[mcp]'") from None
        try:
            self._command = shlex.split(command)
        except ValueError as error:
            raise UserError(f"the tool 'mcp:{command}' cannot be read: {error}") from None
        if not self._command:
            raise UserError("the tool 'mcp' needs a command that starts a server: mcp:COMMAND")
        self.name = f"mcp:{command}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="etude-mcp", daemon=True)
        self._thread.start()
        self._open: weakref.WeakSet[_Connection] = weakref.WeakSet()
        try:
            self._listed = self._wait(self._list())
        except Exception as error:
            self.close()
            raise UserError(f"'{self.name}' gives no tools: {_cause(error)}") from None
        if not self._listed:
            self.close()
            raise UserError(f"'{self.name}' has no tools")

    def opened(self, task: Task, seed: int) -> Sequence[Tool]:
        connection = _Connection(self)
        return [self._tool(found, connection) for found in self._listed]

    def close(self) -> None:
        """Ends every server. May be called twice."""
        if self._loop.is_closed():
            return
        with contextlib.suppress(Exception):
            self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _tool(self, found: Any, connection: _Connection) -> Tool:
        schema = {k: v for k, v in dict(found.input_schema).items() if k not in ("title", "$schema")}

        def run(arguments: Mapping[str, Any]) -> Any:
            return asyncio.wrap_future(
                asyncio.run_coroutine_threadsafe(connection.call(found.name, dict(arguments)), self._loop)
            )

        parameters = {"type": "object", "properties": {}, **schema}
        about = " ".join((found.description or "").split())
        return Tool(found.name, about, parameters, run, keeps=True)

    def _wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(START_SECONDS)

    async def _list(self) -> list[Any]:
        connection = _Connection(self)
        client = await connection.client()
        listed, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            listed += page.tools
            cursor = page.next_cursor
            if not cursor:
                break
        await connection.end()
        return listed

    async def _end(self) -> None:
        await asyncio.gather(*(c.end() for c in list(self._open)), return_exceptions=True)


class _Connection:
    """A server of one episode's, started at the first call, and the task that holds it."""

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[Any] | None = None
        self._over = asyncio.Event()

    async def client(self) -> Any:
        if self._task is None:
            self._server._open.add(self)
            self._ready = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(_hold(self._server._command, self._ready, self._over))
        assert self._ready is not None
        return await asyncio.wait_for(asyncio.shield(self._ready), START_SECONDS)

    async def call(self, name: str, arguments: dict[str, Any]) -> str:
        client = await self.client()
        try:
            found = await client.call_tool(name, arguments)
        except Exception as error:
            raise ToolError(f"{name} failed: {_cause(error)}") from None
        text = "\n".join(getattr(c, "text", f"[{c.type}]") for c in found.content)
        if found.is_error:
            raise ToolError(text or f"{name} failed")
        return text

    async def end(self) -> None:
        self._over.set()
        self._server._open.discard(self)
        if self._task is not None:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self._task, 10)

    def __del__(self) -> None:
        loop = self._server._loop
        if self._task is not None and not self._over.is_set() and not loop.is_closed():
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._over.set)


async def _hold(command: Sequence[str], ready: asyncio.Future[Any], over: asyncio.Event) -> None:
    """Opens and closes the client in one task, as its library demands."""
    from mcp import Client, StdioServerParameters

    started = StdioServerParameters(command=command[0], args=list(command[1:]))
    try:
        async with Client(started) as client:
            ready.set_result(client)
            await over.wait()
    except BaseException as error:
        if not ready.done():
            ready.set_exception(error)


def _cause(error: BaseException) -> str:
    """The innermost of a group of errors, in words."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".rstrip(": ")
