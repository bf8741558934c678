"""`etude serve`: the application behind a socket of this machine, until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from types import FrameType

import uvicorn

from etude.errors import UserError
from etude.serve.service import LOCAL, Service, make_app

GRACE = 5  # seconds that replies under way get after Ctrl-C


def bound(host: str, port: int) -> socket.socket:
    """A socket that accepts already. Raises `UserError`."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=512)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise UserError(f"{host}:{port} cannot be used: {why}; choose another --host or --port") from None


class Server(uvicorn.Server):
    """Ends without cutting connections: replies under way get `GRACE` seconds, or until a second Ctrl-C; then they end
    with an error that the client can read."""

    _loop: asyncio.AbstractEventLoop | None = None  # while it ends

    def __init__(self, service: Service) -> None:
        app = make_app(service)
        super().__init__(
            uvicorn.Config(app, log_level="warning", lifespan="on", timeout_graceful_shutdown=2 * GRACE)
        )
        self.service, self._asked = service, 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._asked += 1
        if self._asked != 2:  # uvicorn takes a second one for an order to drop everything
            super().handle_exit(sig, frame)
        elif self._loop is not None:
            self._loop.call_soon_threadsafe(self.service.end)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        if busy := self.service.busy:
            said = f"requests under way ({busy}) get {GRACE} seconds to end; Ctrl-C ends them now"
            print(f"etude: {said}", file=sys.stderr, flush=True)
        wait = 0 if self._asked > 1 else GRACE
        timer = self._loop.call_later(wait, self.service.end)
        await super().shutdown(sockets)
        timer.cancel()


def run(service: Service, host: str, port: int) -> None:
    """Serves until interrupted, and says where. Raises `UserError` where the port cannot be had."""
    service.open = host not in LOCAL
    place = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    print(f"http://{shown}:{place.getsockname()[1]}/v1  model {service.name}  (Ctrl-C ends it)", flush=True)
    with contextlib.suppress(KeyboardInterrupt), place:
        Server(service).run(sockets=[place])
