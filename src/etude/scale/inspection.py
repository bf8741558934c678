"""Is this server one that training can sample from? Found out by asking it, before anything is sampled for a run."""

from __future__ import annotations

from collections.abc import Sequence

from etude.errors import UserError
from etude.scale.server import Lost, Server
from etude.types import SamplingParams

TESTED = ("0.32",)  # versions of vLLM: its routes for training change with every minor one
PROBE = (1, 2, 3, 4, 5, 6, 7, 8)  # token ids that every vocabulary has


async def inspect(server: Server, context: int = 0, vocabulary: int = 0) -> list[str]:
    """What is wrong with a server, each in a sentence that names the setting; nothing where it can be used. `context`: tokens
    of the longest conversation; `vocabulary`: the model's number of tokens; 0 asks for neither."""
    try:
        found = [*await _version(server), *await _routes(server)]
        if not found:
            found = [*await _length(server, context), *await _sampling(server, vocabulary)]
        return found
    except (Lost, UserError) as error:
        return [str(error)]


async def _version(server: Server) -> list[str]:
    said = await server.version()
    if ".".join(said.split(".")[:2]) in TESTED:
        return []
    return [f"{server.address} is vLLM {said}; tested is {', '.join(TESTED)}: `etude engine install` has it"]


async def _routes(server: Server) -> list[str]:
    try:
        await server.holds()
    except UserError:
        return [
            f"{server.address} cannot take new weights: start it with VLLM_SERVER_DEV_MODE=1 in its environment, on a "
            "private address"
        ]
    try:
        await server.score(PROBE)
    except UserError as error:
        if "404" in str(error):
            return [f"{server.address} does not take token ids: start it with --enable-scale-out"]
        raise
    return []


async def _length(server: Server, context: int) -> list[str]:
    longest = await server.longest()
    if longest >= context:
        return []
    return [
        f"{server.address} serves {longest} tokens at most and the run's conversations may have {context}: start it with "
        f"--max-model-len {context}, or lower run.context"
    ]


async def _sampling(server: Server, vocabulary: int) -> list[str]:
    """The distribution, the seeds and the tokens, tried."""
    found = []
    cut = SamplingParams(temperature=0.5, top_k=1)
    reply = await server.sample(PROBE, cut, 1, 2, ())
    if max(abs(x) for x in reply.logp) > 1e-4:  # the likeliest token is certain where nothing else is left
        found.append(
            f"{server.address} reports log-probabilities of another distribution than it samples: start it with "
            "--logprobs-mode processed_logprobs"
        )
    first, again = [await server.sample(PROBE, SamplingParams(), 7, 12, ()) for _ in range(2)]
    if first.tokens != again.tokens:
        found.append(
            f"{server.address} does not heed the seed of a request: two equal ones were answered differently"
        )
    if not reply.versions:
        found.append(f"{server.address} does not tell which weights sampled a reply")
    if vocabulary:
        try:
            await server.score((1, vocabulary - 1))
        except (UserError, Lost):
            found.append(f"{server.address} has a smaller vocabulary than the model's {vocabulary} tokens")
        if await _knows(server, vocabulary):
            found.append(f"{server.address} has a larger vocabulary than the model's {vocabulary} tokens")
    return found


async def _knows(server: Server, token: int) -> bool:
    try:
        await server.score((1, token))
    except (UserError, Lost):
        return False
    return True


def refuse(problems: Sequence[str]) -> None:
    """Raises `UserError` where there are any."""
    if problems:
        raise UserError("; ".join(problems))
