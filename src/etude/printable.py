"""Text from models, tasks and users as a terminal may show it."""

from __future__ import annotations

import re
import shutil
import sys
import textwrap
from collections.abc import Callable

Say = Callable[[str], None]  # who is told a sentence

ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor movement
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS, ...: titles, links
    r"|\x1b[ -/]*[0-~]"  # the two-character rest
)
CONTROLS = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)


def clean(text: str) -> str:
    """`text` without terminal escape sequences, control characters (but line breaks and tabs) and marks
    that reorder or hide what is read."""
    return CONTROLS.sub("", ESCAPES.sub("", str(text).encode("utf-8", "replace").decode()))


def say(text: object, err: bool = False) -> None:
    """Prints, on standard output or standard error, what a terminal may show of `text`. Line by line: no sequence that
    begins in one hides the next."""
    print("\n".join(map(clean, str(text).split("\n"))), file=sys.stderr if err else sys.stdout, flush=True)


def filled(text: str, hang: int = 4) -> str:
    """`text` with lines broken between words where the terminal is narrower than they are; what follows stands `hang` characters
    further right than the line began. As it is where output is no terminal and COLUMNS does not say how wide it is."""
    width = shutil.get_terminal_size((0, 0)).columns
    lines = text.split("\n")
    return "\n".join(_broken(line, width, hang) for line in lines) if width > hang else text


def _broken(line: str, width: int, hang: int) -> str:
    if len(line) <= width:
        return line
    start = len(line) - len(line.lstrip())
    return textwrap.fill(
        line,
        width,
        subsequent_indent=" " * min(start + hang, width // 2),
        break_long_words=False,  # addresses and commands are copied from here
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    )
