"""The command line: thin functions over the library, one sentence and exit code 2 for what the user can mend."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

import typer

from etude import __version__
from etude.cli import claims, data, engine, lab, look, measure, method, plan, play, runs, studies, train, use
from etude.errors import UserError
from etude.printable import say

app = typer.Typer(
    name="etude",
    help="Trains a language model on its own checked attempts, and compares ways of doing so at equal compute.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for room in (train, plan, measure, play, use, runs, look, claims, studies, data, lab, method, engine):
    room.add_to(app)


def _version(wanted: bool) -> None:
    if wanted:
        say(f"etude {__version__}")
        raise typer.Exit


@app.callback()
def _any_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="say which etude this is")
    ] = False,
) -> None:
    pass


MACHINE = {  # what the system says where the user, not etude, can mend it
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENAMETOOLONG, errno.ENOTDIR),
    *(errno.EISDIR, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EIO),
}
LONGEST = 200  # characters of a word in a sentence: what was given is repeated, but not all of it


def run(arguments: Sequence[str]) -> int:
    """The program; returns its exit code. 0 done, 2 bad input or a refusal, 130 interrupted; ours raise (1)."""
    try:
        command = _command()
        words = plan.expanded(arguments, command)
        result = command.main(args=words, prog_name="etude", standalone_mode=False)
    except UserError as error:
        return _refused(error)
    except typer.TyperException as error:  # the parser's own: unknown command, missing argument
        if not arguments:
            say(error.format_message(), err=True)
            return 2
        return _refused(error.format_message())
    except OSError as error:
        if error.errno not in MACHINE:
            raise
        named = f"'{error.filename}': " if error.filename is not None else ""
        return _refused(f"{named}{error.strerror}")
    except typer.Abort:  # a question without an answer
        if sys.stdin.isatty():
            return _interrupted(arguments)
        say("", err=True)  # after the question
        return _refused("the input ended before all questions were answered; nothing was written")
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):  # torch's own word for it
            raise
        return _refused("there is not enough memory; give smaller numbers, or a smaller model")
    except KeyboardInterrupt:
        return _interrupted(arguments)
    if result == 130:  # the parser's own answer to Ctrl-C
        return _interrupted(arguments)
    return result if isinstance(result, int) else 0


@cache
def _command() -> Any:
    """All commands, read from their functions' signatures once."""
    return typer.main.get_command(app)


def _interrupted(arguments: Sequence[str]) -> int:
    trains = arguments[:1] and arguments[0] in ("train", "resume", "demo")
    more = "; `etude resume` goes on from the last checkpoint, where there is one" if trains else ""
    say(f"etude: interrupted{more}", err=True)
    return 130


def _refused(why: object) -> int:
    """Says in one sentence what the user can mend. What was given may be long, or hold what a terminal obeys."""
    words = re.sub(
        rf"\S{{{LONGEST},}}", lambda word: word[0][: LONGEST - 50] + "[...]" + word[0][-45:], str(why)
    )
    say(f"etude: {words}", err=True)
    return 2
