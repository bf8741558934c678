"""Pages of the documentation site that are made from the program itself, as a hook of mkdocs: a page for every method, the
settings, the commands, the Python API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from etude.docs.claims import labels
from etude.docs.equations import mathml
from etude.docs.method_page import facts
from etude.docs.papers import table_row
from etude.methods import outside
from etude.recipe import STAGES


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages (mkdocs calls this)."""
    from mkdocs.structure.files import File

    for name, text in pages():
        files.append(File.generated(config, name, content=text))
    return files


def pages() -> Iterator[tuple[str, str]]:
    """(path below docs, Markdown)."""
    found = [f for f in facts() if f["topic"] != outside.TOPIC]
    yield "methods/index.md", _index(found)
    for one in found:
        yield f"methods/{one['name']}.md", _method(one)
    yield "reference/settings.md", _settings()
    yield "reference/commands.md", _commands()
    yield "reference/python.md", _python()


def _index(found: list[dict[str, Any]]) -> str:
    lines = [
        "# Methods",
        "",
        f"{len(found)} methods, each one file of its own under `src/etude/methods/`.",
        "",
    ]
    for topic in dict.fromkeys(f["topic"] for f in found):
        lines += [f"## {topic.replace('_', ' ').capitalize()}", ""]
        for one in (f for f in found if f["topic"] == topic):
            lines.append(f"- [{one['name']}]({one['name']}.md): {one['idea'].split('. ')[0].rstrip('.')}.")
        lines.append("")
    return "\n".join(lines)


def _method(one: dict[str, Any]) -> str:
    lines = [f"# {one['name']}", "", one["idea"], ""]
    if one["equation"]:
        lines += [mathml(one["equation"]), ""]
    if one["paper"]:
        where = f", <{one['url']}>" if one["url"] else ""
        lines += [f"*{one['paper']}* ({one['year']}){where}.", ""]
    lines += ["    etude train " + one["name"] + " -t chain_sum:max_terms=2 --budget 10m", ""]
    replaced = [f"`{s}` ({STAGES[s]})" for s in one["replaces"]]
    lines += [f"Replaces {', '.join(replaced)}.", ""] if replaced else []
    lines += [f"Needs: {', '.join(one['needs'])}.", ""] if one["needs"] else []
    if one["departures"]:
        lines += ["## Where it departs from the paper", "", *(f"- {d}" for d in one["departures"]), ""]
    if one["claimed"]:
        lines += [
            "## Its claim",
            "",
            one["claimed"],
            "",
            *(f"- not tested unless {says}" for says in one["manipulation"]),
            *([f"- tested without a check of its own: {one['unchecked']}"] if one["unchecked"] else []),
            *([""] if one["manipulation"] or one["unchecked"] else []),
            f"On the laboratory, does it reproduce / does it pay for itself: {labels(one['claim'])}; see [claims](../claims.md).",
            "",
        ]
    lines += ["## Settings", "", table_row(("setting", "value", "meaning", "range")), table_row(["---"] * 4)]
    own = {*one["replaces"], "update"}
    for name, s in one["settings"].items():
        if name.split(".")[0] in own:
            lines.append(
                table_row((f"`{name}`", f"`{s['value']}`", s["meaning"], f"{s['unit']} {s['range']}".strip()))
            )
    where = f"src/etude/methods/{one['topic']}/"
    return "\n".join(
        [
            *lines,
            "",
            f"The method's file stands in `{where}`; `etude recipes {one['name']}` prints this page.",
            "",
        ]
    )


def _settings() -> str:
    from etude.assembly import DEFAULTS
    from etude.settings import Stage
    from etude.train.settings import RunSettings

    lines = [
        "# Settings",
        "",
        "`--set NAME=VALUE`, or a table of a plan file. Recipes bring further ones of their own.",
        "",
    ]
    for stage, part in {"run": Stage(RunSettings), **DEFAULTS}.items():
        rows = list(part)
        if not rows:
            continue
        lines += [
            f"## {stage}",
            "",
            table_row(("setting", "default", "meaning", "range")),
            table_row(["---"] * 4),
        ]
        for p, value in rows:
            detail = f"{p.setting.unit} {p.setting.range}".strip()
            lines.append(table_row((f"`{stage}.{p.name}`", f"`{value}`", p.setting.meaning, detail)))
        lines.append("")
    return "\n".join(lines)


def _commands() -> str:
    from typer.main import get_command

    from etude import cli

    lines = ["# Commands", ""]
    group: Any = get_command(cli.app)
    for name, command in group.commands.items():
        lines += [f"## etude {name}", "", (command.help or "").strip(), ""]
        rows = [p for p in command.params if not getattr(p, "hidden", False)]
        if rows:
            lines += [table_row(("argument or option", "what it is")), table_row(["---"] * 2)]
        for p in rows:
            shown = (
                ", ".join(f"`{o}`" for o in p.opts)
                if p.param_type_name == "option"
                else f"`{p.name.upper()}`"
            )
            lines.append(table_row((shown, (getattr(p, "help", None) or "").replace("|", "or"))))
        lines.append("")
    return "\n".join(lines)


def _python() -> str:
    import etude

    lines = ["# Python", "", "Everything that `import etude` offers.", ""]
    for name in etude.__all__:
        if not name.startswith("_"):
            lines += [f"::: {etude._HOME[name]}.{name}", ""]
    return "\n".join(lines)
