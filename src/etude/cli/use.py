"""`etude ask`, `serve` and `export`: a trained model in use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from etude.cli.measure import Plain, Where, With
from etude.cli.train import Json, Seed, Tools
from etude.errors import UserError
from etude.printable import say

if TYPE_CHECKING:
    from etude.serve.replies import Speaker
    from etude.tools.kit import Kit
    from etude.types import SamplingParams

Rows = Annotated[int, typer.Option(help="replies under way at once; more wait", min=1)]


def add_to(app: typer.Typer) -> None:
    app.command()(ask)
    app.command()(serve)
    app.command()(export)


def ask(
    model: Where,
    question: Annotated[
        str | None,
        typer.Argument(help="without it a chat; without a terminal a question a line of standard input"),
    ] = None,
    system: Annotated[str, typer.Option(help="a system message, in the place of the run's own")] = "",
    plain: Plain = False,
    max_tokens: Annotated[int, typer.Option(help="longest reply", min=1)] = 512,
    temperature: Annotated[
        float | None, typer.Option(help="above 0; a run's own, else 1", min=0.01, max=10)
    ] = None,
    greedy: Annotated[bool, typer.Option(help="the likeliest token always")] = False,
    by: With = "",
    tools: Tools = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Ask a run's model, or any other: one answer, or a chat in the terminal."""
    import asyncio
    from dataclasses import replace

    from etude.serve import chat as chats
    from etude.serve.methods import usable

    speaker, params = _speaker(model, 32 if by else 1, plain, system)
    params = replace(
        params, greedy=greedy, max_tokens=max_tokens, temperature=temperature or params.temperature
    )
    kit = _kit(model, tools)
    chat = chats.Chat(speaker, params, seed, usable(by) if by else None, kit)
    if question is not None:
        with asyncio.Runner() as runner:
            chats.answer_one(chat, question, json, runner)
    elif json or not sys.stdin.isatty():
        chats.answer_lines(chat, sys.stdin, json)
    else:
        chats.talk(chat, f"{model}, temperature {0 if greedy else params.temperature:g}")


def serve(
    model: Where,
    port: Annotated[int, typer.Option(help="0 takes a free one", min=0, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="0.0.0.0 lets other machines in; give --api-key then")
    ] = "127.0.0.1",
    name: Annotated[str, typer.Option(help="what clients call the model; default: its last part")] = "",
    api_key: Annotated[
        str, typer.Option(envvar="ETUDE_API_KEY", help="what clients must bring", show_default=False)
    ] = "",
    max_tokens: Annotated[int, typer.Option(help="of a chat reply that names no limit", min=1)] = 512,
    timeout: Annotated[float, typer.Option(help="seconds for one request", min=0.1)] = 600.0,
    rows: Rows = 32,
    plain: Plain = False,
    by: With = "",
) -> None:
    """Serve a model to whatever speaks OpenAI's interface, on this machine."""
    try:
        from etude.serve.methods import usable
        from etude.serve.server import run
        from etude.serve.service import Service
    except ImportError as error:
        raise UserError("the server needs packages that are missing; pip install 'etude[serve]'") from error
    speaker, own = _speaker(model, rows, plain)
    method = usable(by) if by else None
    service = Service(speaker, name or Path(model).name, max_tokens, timeout, api_key, own, method)
    run(service, host, port)


def _kit(model: str, tools: str | None) -> Kit | None:
    """What may be called: `tools`, else what the run's model was trained with. None where there is nothing."""
    from etude.tasks.isolate import Pool
    from etude.tools.spec import users_own
    from etude.train.measure import run_defaults
    from etude.train.settings import run_settings
    from etude.train.setup import kit_of

    settings = run_settings(run_defaults(model), {} if tools is None else {"tools": tools})
    made = kit_of(settings, Pool(seconds=settings.check_seconds, known=users_own(settings.tools)))
    return made if made.sources else None


def _speaker(model: str, rows: int, plain: bool, system: str = "") -> tuple[Speaker, SamplingParams]:
    """The model, which is asked as its run asked unless `plain`, and how it is sampled."""
    from etude.serve.replies import Speaker
    from etude.train.measure import load_policy, run_defaults
    from etude.train.put import asking

    policy = load_policy(model, str(run_defaults(model).get("precision", "bf16")))
    return Speaker(policy, rows), asking(policy, model, plain, system)


def export(
    run: Annotated[str, typer.Argument(help="a run; for gguf any model, for hub an exported directory too")],
    to: Annotated[str, typer.Option("--to", help="a new directory, or: adapter, gguf, hub")],
    name: Annotated[
        str | None,
        typer.Argument(help="of the adapter's directory, the .gguf file, or OWNER/NAME on the hub"),
    ] = None,
    dtype: Annotated[str, typer.Option(help="of a GGUF file: f32, f16, bf16 or q8_0")] = "f16",
    public: Annotated[bool, typer.Option(help="on the hub, let everybody see it")] = False,
) -> None:
    """Write a run's model for use elsewhere, with a card that says how it was made."""
    from etude.export import write

    own = Path(run).name
    if to == "adapter":
        say(str(write.to_adapter(run, Path(name or f"{own}-adapter"))))
    elif to == "gguf":
        say(str(write.to_gguf(run, Path(name or f"{own}.gguf"), dtype)))
    elif to == "hub":
        if name is None:
            raise UserError(
                "--to hub needs the model's name there, as in: etude export RUN --to hub OWNER/NAME"
            )
        say(write.to_hub(run, name, private=not public))
    else:
        if name is not None:
            raise UserError(f"'{name}' is one name too many: --to {to} is the directory that is written")
        say(str(write.to_directory(run, Path(to))))
