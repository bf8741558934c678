"""Text files are UTF-8 whatever the locale: nothing in the package leaves the encoding to it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import etude

SOURCES = sorted(Path(etude.__file__).parent.rglob("*.py"))


def left_to_the_locale(tree: ast.AST) -> Iterator[int]:
    """Lines of calls that read or write text without naming an encoding."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        owner = getattr(call.func.value, "id", "") if isinstance(call.func, ast.Attribute) else ""
        given = {k.arg for k in call.keywords}
        if "encoding" in given or None in given:
            continue
        if name == "read_text" and call.args and owner != "files":
            continue  # files.read_text, or the encoding as the first argument
        texts = [
            a.value for a in (*call.args, *(k.value for k in call.keywords)) if isinstance(a, ast.Constant)
        ]
        binary = any(isinstance(t, str) and "b" in t and set(t) <= set("rwxab+") for t in texts)
        if (
            name == "read_text"
            or (name == "write_text" and len(call.args) < 2)
            or (
                name in ("open", "fdopen")
                and owner not in ("os", "RunDirectory", "webbrowser")
                and not binary
            )
            or (name == "fdopen" and not binary)
            or (name in ("NamedTemporaryFile", "TemporaryFile") and "mode" in given and not binary)
            or (owner == "subprocess" and {"text", "universal_newlines"} & given)
        ):
            yield call.lineno


def test_nothing_leaves_the_encoding_to_the_locale() -> None:
    found = [
        f"{path}:{line}"
        for path in SOURCES
        for line in left_to_the_locale(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert not found, "name encoding='utf-8': " + ", ".join(found)


def test_what_is_looked_for_is_found() -> None:
    bad = "p.read_text()", "p.write_text(x)", "open(p)", "p.open('w')", "gzip.open(p, 'rt')", "os.fdopen(1)"
    bad += ("subprocess.run(a, text=True)",)
    good = "p.read_text('utf-8')", "p.open('rb')", "open(p, mode='ab')", "os.open(p, 0)", "os.fdopen(1, 'rb')"
    good += ("p.write_text(x, encoding='utf-8')", "subprocess.run(a)", "RunDirectory.open(p)")
    assert [list(left_to_the_locale(ast.parse(code))) for code in bad] == [[1]] * len(bad)
    assert [list(left_to_the_locale(ast.parse(code))) for code in good] == [[]] * len(good)
