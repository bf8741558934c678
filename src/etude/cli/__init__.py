"""The command line: thin functions over the library, one sentence and exit code 2 for what the user can mend."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from etude import __version__
from etude.cli import claims, engine, lab, look, measure, method, plan, runs, train, use
from etude.errors import UserError

app = typer.Typer(
    name="etude",
    help="Trains a language model on its own checked attempts, and compares ways of doing so at equal compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for room in (train, plan, measure, use, runs, look, claims, lab, method, engine):
    room.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"etude {__version__}")
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which etude this is")
    ] = False,
) -> None:
    pass


def run(arguments: Sequence[str]) -> int:
    """The program; returns its exit code. 0 done, 2 bad input or a refusal, 130 interrupted; ours raise (1)."""
    try:
        command = typer.main.get_command(app)
        words = plan.expanded(arguments, command)
        result = command.main(args=words, prog_name="etude", standalone_mode=False)
    except UserError as error:
        print(f"etude: {error}", file=sys.stderr)
        return 2
    except typer.TyperException as error:  # the parser's own: unknown command, missing argument
        print(f"etude: {error.format_message()}" if arguments else error.format_message(), file=sys.stderr)
        return 2
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted(arguments)
    if result == 130:  # the parser's own answer to Ctrl-C
        return _interrupted(arguments)
    return result if isinstance(result, int) else 0


def _interrupted(arguments: Sequence[str]) -> int:
    trains = arguments[:1] and arguments[0] in ("train", "resume", "demo")
    more = "; `etude resume` goes on from the last checkpoint" if trains else ""
    print(f"etude: interrupted{more}", file=sys.stderr)
    return 130
