"""What the pages of the project show: their Python blocks, and the commands that they name."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

from typer.main import get_command

from etude import cli
from etude.assembly import build
from etude.methods import find
from etude.train.config import parse_changes
from etude.train.settings import run_settings

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
INDENTED = re.compile(r"(?:^ {4}.*\n|^\n)+", re.M)
COMMANDS = get_command(cli.app).commands  # type: ignore[attr-defined]


def fenced(page: str, language: str) -> list[str]:
    """The blocks of a page that are marked ```language."""
    return [block for found, block in FENCE.findall((ROOT / page).read_text()) if found == language]


def indented(page: str, marker: str) -> str:
    """The one block of a page, indented by four spaces, that holds `marker`."""
    found = [b for b in INDENTED.findall((ROOT / page).read_text()) if marker in b]
    assert len(found) == 1, f"{page}: {len(found)} blocks hold '{marker}'"
    return "\n".join(line[4:] for line in found[0].splitlines()) + "\n"


def commands(page: str, inline: bool = True) -> list[list[str]]:
    """Every `etude ...` of a page, in its blocks and (`inline`) between backticks, as words."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / page).read_text())
    text = FENCE.sub(lambda block: re.sub(r"^", "    ", block[2], flags=re.M), text)
    found = re.findall(r"^ {4}(etude \w.*)$", text, re.M)
    found = [line for lines in found for line in re.split(r"\s{2,}(?=etude )", re.sub(r"\s#.*", "", lines))]
    between = [" ".join(code.split()) for code in re.findall(r"`(etude [^`]+)`", text)] if inline else []
    own = re.findall(r"Recipe\(\s*(?:name=)?\"(\w+)\"", text)  # recipes that the page itself writes
    lines = [shlex.split(line)[1:] for line in found + between]
    return [words for words in lines if not any(set(word.split("+")) & set(own) for word in words)]


def fault(words: list[str]) -> str | None:
    """What is wrong with a command: its name, an option, a recipe or a setting that does not exist."""
    name, *rest = words
    if name not in COMMANDS:
        return f"there is no command '{name}'"
    command = COMMANDS[name]
    while rest and rest[0] in getattr(command, "commands", {}):
        name, command, rest = f"{name} {rest[0]}", command.commands[rest[0]], rest[1:]
    known = {o for p in command.params if p.param_type_name == "option" for o in (*p.opts, *p.secondary_opts)}
    unknown = [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    if unknown:
        return f"'etude {name}' has no option '{unknown[0]}'"
    changes = parse_changes([after for word, after in itertools.pairwise(rest) if word == "--set"])
    recipes = [r for r in _arguments(rest, command) if re.fullmatch(r"[a-z0-9_+]+", r)]
    if name not in ("train", "compare"):
        recipes = []
    for recipe in recipes:
        own = {k: v for k, v in changes.items() if not k.startswith("run.")}
        build(find(recipe), own)
    run_settings({}, {k.removeprefix("run."): v for k, v in changes.items() if k.startswith("run.")})
    return None


def _arguments(words: list[str], command: Any) -> list[str]:
    """The words that are neither options nor their values."""
    flags = {o for p in command.params if getattr(p, "is_flag", False) for o in (*p.opts, *p.secondary_opts)}
    found, skip = [], False
    for word in words:
        if not skip and not word.startswith("-"):
            found.append(word)
        skip = word.startswith("-") and word not in flags and "=" not in word
    return found
