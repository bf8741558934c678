"""`etude engine install` and `serve`: the inference engine, in an environment of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from etude.cli.train import Model
from etude.printable import say

engine = typer.Typer(help="The inference engine (vLLM), in an environment of its own.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(engine, name="engine")


@engine.command()
def install() -> None:
    """Install vLLM beside etude, below the user's data directory: the build for the CPU where there is no GPU."""
    from etude.scale.local import install, package

    say(f"{package()} is installed in {install()}")


@engine.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def serve(
    context: typer.Context,
    model: Model = "smollm2",
    port: Annotated[int, typer.Option(help="where it listens", min=1, max=65535)] = 8000,
    host: Annotated[
        str, typer.Option(help="the address it listens at; its routes change weights: keep it private")
    ] = "127.0.0.1",
) -> None:
    """Start a server that `etude train --on` can sample from; further options go to vLLM. Ends with Ctrl-C."""
    from etude.models.load import locate
    from etude.scale.local import arguments, python

    command = [str(python()), "-m", "vllm.entrypoints.openai.api_server"]
    command += [*arguments(Path(locate(model)), port, host), *context.args]
    environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
    environment.pop("PYTHONPATH", None)
    os.execve(command[0], command, environment)
