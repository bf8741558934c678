"""A model behind OpenAI's interface, as an ASGI application. Requests that come at the same time are sampled together."""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from etude import seeds
from etude.errors import UserError
from etude.evaluate.inference import Played
from etude.serve import api
from etude.serve.methods import answered
from etude.serve.refused import BadRequest, error_body
from etude.serve.replies import Piece, Speaker
from etude.serve.tools import held
from etude.types import Array, SamplingParams

LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST = 16 << 20  # bytes of a request
NO_RETRY = {"x-should-retry": "false"}  # OpenAI's client would ask for the same again


class Ending(Exception):
    """The server ends."""


Queue = asyncio.Queue[tuple[int, Piece] | Exception | None]


@dataclass
class Service:
    """What the routes share. `name`: what clients call the model; `longest`: tokens of a chat reply without a limit;
    `timeout`: seconds for one request; `key`: what clients must bring, "" for nothing; `own`: how a chat is sampled where a
    request does not say; `method`: of inference, by which chats are answered."""

    speaker: Speaker
    name: str
    longest: int = 512
    timeout: float = 600.0
    key: str = ""
    own: SamplingParams = api.PLAIN
    method: Played | None = None
    open: bool = False  # reached under names other than this machine's own

    def __post_init__(self) -> None:
        self.created = int(time.time())
        self._open: set[Queue] = set()  # one for each request under way

    @property
    def busy(self) -> int:
        """Requests under way."""
        return len(self._open)

    def end(self) -> None:
        """Ends all requests under way with an error of their own."""
        for queue in self._open:
            queue.put_nowait(Ending("the server was stopped before the reply was whole"))

    # ---- routes ------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        self._admit(request)
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request) -> Response:
        self._admit(request)
        if (asked := request.path_params["name"]) != self.name:
            raise BadRequest(f"there is no model '{asked}' here", "model", 404, "model_not_found")
        return JSONResponse(self._model())

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def chat(self, request: Request) -> Response:
        return await self._complete(request, True)

    async def completions(self, request: Request) -> Response:
        return await self._complete(request, False)

    def _model(self) -> dict[str, Any]:
        own = {"max_model_len": self.speaker.policy.context}
        return {"id": self.name, "object": "model", "created": self.created, "owned_by": "etude", **own}

    def _admit(self, request: Request) -> None:
        """Refuses who has no key, and pages of other sites in a browser of this machine."""
        host = (request.url.hostname or "").strip("[]")
        origin = request.headers.get("origin", "")
        foreign = bool(origin) and urlsplit(origin).hostname not in LOCAL
        if not self.open and (host not in LOCAL or foreign):
            raise BadRequest("this server answers to this machine only", status=403)
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.key and not hmac.compare_digest(given.encode(), self.key.encode()):
            raise BadRequest(
                "the API key is not the one given to --api-key", status=401, code="invalid_api_key"
            )

    async def _complete(self, request: Request, chat: bool) -> Response:
        self._admit(request)
        wanted = api.read(await _body(request), chat, self.speaker.policy, self.name, self.longest, self.own)
        if self.method is not None and (not chat or wanted.logprobs):
            said = "log-probabilities are not served of it" if chat else "ask for chat completions"
            raise BadRequest(f"a method answers here ({self.method.name}); {said}")
        if self.method is not None and wanted.offer is not None:
            raise BadRequest(f"a method answers here ({self.method.name}), which calls no tools", "tools")
        head = {
            "id": f"{'chatcmpl' if chat else 'cmpl'}-{secrets.token_hex(12)}",
            "object": ("chat.completion.chunk" if wanted.stream else "chat.completion")
            if chat
            else "text_completion",
            "created": int(time.time()),
            "model": self.name,
        }
        if wanted.stream:
            return StreamingResponse(self._events(wanted, head), media_type="text/event-stream")
        return await _unless_gone(request, self._whole(wanted, head))

    # ---- replies -----------------------------------------------------------------------------------------

    async def _whole(self, wanted: api.Wanted, head: dict[str, Any]) -> Response:
        """All choices in one answer."""
        pieces: dict[int, list[Piece]] = {}
        try:
            async for index, piece in self._together(wanted):
                pieces.setdefault(index, []).append(piece)
        except TimeoutError:
            return JSONResponse(self._late(), 504, NO_RETRY)
        except Ending as error:
            return JSONResponse(error_body(str(error), kind="server_error"), 503, NO_RETRY)
        choices = []
        for index, mine in sorted(pieces.items()):
            before = wanted.texts[index // wanted.n]
            logps = api.log_probabilities(wanted, self.speaker.policy, mine, len(before))
            text = before + "".join(p.text for p in mine)
            choices.append(api.choice(wanted, index, text, mine[-1].finish, logps, mine[-1].calls))
        said = sum(p.tokens for mine in pieces.values() for p in mine)
        return JSONResponse({**head, "choices": choices, "usage": self._usage(wanted, said)})

    async def _events(self, wanted: api.Wanted, head: dict[str, Any]) -> AsyncGenerator[str, None]:
        """Server-sent events: a chunk for every piece of every choice."""
        begun: set[int] = set()
        waiting: dict[int, list[Piece]] = {}  # tokens whose text is not certain yet
        lengths: dict[int, int] = {}
        said = 0
        try:
            async with aclosing(self._together(wanted)) as pieces:
                async for index, piece in pieces:
                    waiting.setdefault(index, []).append(piece)
                    said += piece.tokens
                    first, text = index not in begun, piece.text
                    if not (text or piece.finish or first):
                        continue
                    if first:
                        text = wanted.texts[index // wanted.n] + text
                    logps = api.log_probabilities(
                        wanted, self.speaker.policy, waiting.pop(index), lengths.get(index, 0)
                    )
                    lengths[index] = lengths.get(index, 0) + len(text)
                    begun.add(index)
                    one = api.delta(wanted, index, text, piece.finish, logps, first, piece.calls)
                    yield _event({**head, "choices": [one]})
            if wanted.usage:
                yield _event({**head, "choices": [], "usage": self._usage(wanted, said)})
        except TimeoutError:
            yield _event(self._late())
        except (UserError, Ending) as error:
            yield _event(error_body(str(error)))
        yield "data: [DONE]\n\n"

    def _stream(self, wanted: api.Wanted, prompt: Array, key: int) -> AsyncGenerator[Piece, None]:
        offer, params = wanted.offer, wanted.params
        if offer is None:
            return self.speaker.stream(prompt, params, key)
        pieces = self.speaker.stream(prompt, replace(params, stop=(*params.stop, *offer.ends)), key)
        return held(pieces, offer, self.speaker.policy.renderer, wanted.several)

    def _late(self) -> dict[str, Any]:
        said = f"no whole reply within {self.timeout:g} seconds; ask for fewer tokens, or raise --timeout"
        return error_body(said, code="timeout", kind="timeout")

    def _usage(self, wanted: api.Wanted, said: int) -> dict[str, int]:
        return api.usage(sum(len(p) for p in wanted.prompts), said)

    async def _together(self, wanted: api.Wanted) -> AsyncGenerator[tuple[int, Piece], None]:
        """The pieces of all choices as they come: (number of the choice, piece). TimeoutError after `timeout` seconds."""
        queue: Queue = asyncio.Queue()
        self._open.add(queue)
        root = secrets.randbits(62) if wanted.seed is None else wanted.seed

        async def one(index: int) -> None:
            prompt, key = wanted.prompts[index // wanted.n], seeds.key(root, "serve", index)
            try:
                if self.method is not None:
                    queue.put_nowait((index, await answered(self.speaker, self.method, wanted, key)))
                    queue.put_nowait(None)
                    return
                async with aclosing(self._stream(wanted, prompt, key)) as pieces:
                    async for piece in pieces:
                        queue.put_nowait((index, piece))
                queue.put_nowait(None)
            except Exception as error:
                queue.put_nowait(error)

        work = [asyncio.ensure_future(one(i)) for i in range(len(wanted.prompts) * wanted.n)]
        ends = asyncio.get_running_loop().time() + self.timeout
        open_ = len(work)
        try:
            while open_:
                async with asyncio.timeout_at(ends):
                    got = await queue.get()
                if isinstance(got, Exception):
                    raise got
                if got is None:
                    open_ -= 1
                else:
                    yield got
        finally:
            self._open.discard(queue)
            for task in work:
                task.cancel()


async def _body(request: Request) -> Any:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # forms of other sites come without asking the browser; JSON does not
        raise BadRequest("the content type must be application/json", status=415)
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST:
            raise BadRequest(f"the body is larger than {LARGEST >> 20} MB", status=413)
    try:
        return json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


async def _unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response, or an end of the work where the client has left."""
    doing = asyncio.ensure_future(work)

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    watching = asyncio.ensure_future(left())
    try:
        await asyncio.wait({doing, watching}, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else Response(status_code=499)
    finally:
        doing.cancel()
        watching.cancel()


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


def make_app(service: Service) -> Starlette:
    """The application, for any ASGI server."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, BadRequest)
        return JSONResponse(error.body, error.status)

    async def unusable(request: Request, error: Exception) -> Response:
        return JSONResponse(error_body(str(error)), 400)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = {
            404: f"there is no {request.url.path} here",
            405: f"{request.url.path} has no {request.method}",
        }
        return JSONResponse(error_body(said.get(error.status_code, error.detail)), error.status_code)

    async def broken(request: Request, error: Exception) -> Response:
        said = f"the server failed: {type(error).__name__}: {error}"
        return JSONResponse(error_body(said, kind="server_error"), 500, NO_RETRY)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # what is made at first use is made now, not while a client waits
        prompt = np.array(
            [service.speaker.policy.tokenizer.stops[0] if service.speaker.policy.tokenizer.stops else 0],
            np.int32,
        )
        await service.speaker.sampler.sample(prompt, SamplingParams(max_tokens=1), 0)
        yield
        await service.speaker.close()

    return Starlette(
        routes=[
            Route("/v1/models", service.models),
            Route("/v1/models/{name:path}", service.model),
            Route("/v1/chat/completions", service.chat, methods=["POST"]),
            Route("/v1/completions", service.completions, methods=["POST"]),
            Route("/health", service.health),
        ],
        exception_handlers={
            BadRequest: refused,
            UserError: unusable,
            HTTPException: unknown,
            Exception: broken,
        },
        lifespan=lifespan,
    )
