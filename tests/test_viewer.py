"""The viewer among odd files, and terminals among odd text.

Looked for: results.json, config.json, card.json, metrics.jsonl and evals.jsonl that hold null, a list, a number, text, an
empty object, objects of other types, half a file, nesting without end, a directory; folders that vanish while they are
listed or that nobody may read; connections that ask for nothing, that are kept open, and that go away in the middle; escape
sequences in a task's kind, a model's text, the name of a file and of an arm.
"""

from __future__ import annotations

import ast
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from browser.synthetic import make_comparison, make_run
from etude import cli
from etude.errors import UserError
from etude.printable import say
from etude.report import server
from etude.report.server import Library, make_server
from etude.report.turns import screen
from test_report_page import Client

ODD = ["null", "[]", "5", '"x"', "{}", '{"verdict": {}, "arms": 5}', '{"a', "[" * 100_000, "9" * 5000, None]
ODD += [
    '{"arms": [], "problems": 1, "samples": 1, "seeds": [], "card": {}, "verdict": []}',
    '{"plan": 1, "settings": 2}',
]
LINES = [
    '{"step": "x", "reward": {}}\n',
    '{"step": 1e400}\n',
    '{"mean": "x", "low": [], "high": {}, "step": {}}\n',
    "null\n",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_run(tmp_path / "good", steps=1)
    return tmp_path


def put(path: Path, content: str | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.mkdir() if content is None else path.write_text(content)


def test_odd_directories_are_listed_as_such_beside_the_others(root: Path) -> None:
    for number, content in enumerate(ODD):
        put(root / f"comparison-{number}" / "results.json", content)
        for name in ("config.json", "card.json", "metrics.jsonl", "evals.jsonl", "findings.jsonl"):
            run = root / f"run-{number}-{name}"
            shutil.copytree(root / "good", run)
            put(run / name, content)
    for number, line in enumerate(LINES):
        for name in ("metrics.jsonl", "evals.jsonl"):
            shutil.copytree(root / "good", root / f"lines-{number}-{name}")
            (root / f"lines-{number}-{name}" / name).write_text(line)
    rows = {row["name"]: row for row in Library(root).listing()}
    assert rows["good"]["recipe"]
    assert "broken" not in rows["good"]
    assert sum("broken" in row for row in rows.values()) > 20
    for row in rows.values():  # what the page calls a number is one
        if "broken" not in row and row["kind"] == "run":
            assert all(isinstance(row[name], int | float | None) for name in ("step", "reward", "seconds"))
    json.dumps(rows, allow_nan=False)


def test_a_folder_that_vanishes_takes_no_other_along(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(root / "gone", steps=1)
    shutil.copytree(root / "good", root / "folder" / "inner")
    look = Path.iterdir

    def vanishing(path: Path):
        if path.name == "folder":
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return look(path)

    monkeypatch.setattr(Path, "iterdir", vanishing)
    metrics = server.RunDirectory.metrics

    def vanished(run):
        if run.path.name == "gone":
            shutil.rmtree(run.path, ignore_errors=True)
        return metrics(run)

    monkeypatch.setattr(server.RunDirectory, "metrics", vanished)
    rows = {row["name"]: row for row in Library(root).listing()}
    assert rows.keys() == {"good", "gone"}
    assert "broken" in rows["gone"]
    assert "broken" not in rows["good"]


@pytest.fixture
def client(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    assert 1 <= server.Handler.timeout <= 60
    monkeypatch.setattr(server.Handler, "timeout", 0.3)
    made = make_server(root)
    threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield Client(int(made.server_address[1]))
    made.shutdown()
    made.server_close()


@pytest.mark.parametrize("asked", [b"", b"GET / HT", b"GET /api/list HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_an_idle_connection_is_ended(client: Client, asked: bytes) -> None:
    with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
        connection.sendall(asked)
        while connection.recv(1 << 16):
            pass  # the answer, and then the end


def test_what_cannot_be_served_is_an_answer(
    client: Client, root: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    put(root / "odd" / "results.json", "[]")
    put(root / "good" / "metrics.jsonl", "null\n")
    for path in ("/?run=odd", "/api/run?run=good"):
        status, body = client.get(path)
        assert status == 500
        assert body
    assert client.json("/api/list")["runs"]
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )  # reset instead of goodbye
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert client.get("/")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


# ---- terminals -----------------------------------------------------------------------------------------

EVIL = "\x1b[31mred\x1b]0;title\x07\r\x9b2J\u202e"


def test_an_episode_is_shown_without_what_a_terminal_obeys() -> None:
    span = {
        "role": "user",
        "tag": EVIL,
        "text": f"a{EVIL}\nb",
        "start": 0,
        "end": 1,
        "sampled": False,
        "restart": False,
    }
    verdicts = [{"correct": False, "feedback": EVIL, "reward": 0}]
    row = {
        "id": f"1-0{EVIL}",
        "kind": f"kind{EVIL}",
        "scores": json.dumps({f"part{EVIL}": 1.0}),
        "weights": None,
    }
    row |= {
        "sampled": [False],
        "advantage": None,
        "verdicts": json.dumps(verdicts),
        "spans": [span, {**span, "tag": "attempt"}],
    }
    said = screen([row])
    assert "kindred" in said
    assert not set(said) & set("\x1b\x07\r\x9b\u202e")


def test_no_line_hides_the_next(capsys: pytest.CaptureFixture[str]) -> None:
    say("a\x1b]0;\nb\nc\x07d")
    assert capsys.readouterr().out == "a0;\nb\ncd\n"


def test_errors_are_cleaned_and_shortened(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["recipes", f"x{EVIL}"]) == 2
    said = capsys.readouterr().err
    assert "xred" in said
    assert "\x1b" not in said
    assert cli.run(["recipes", "9" * 5000]) == 2
    assert len(capsys.readouterr().err) < 2500


def test_every_command_prints_through_one_function() -> None:
    """`say` cleans; `print` and `typer.echo` do not."""
    for path in Path(cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                assert ast.unparse(node.func) not in ("print", "typer.echo"), f"{path.name}:{node.lineno}"


def test_a_comparison_of_an_odd_arm_has_no_page(tmp_path: Path) -> None:
    make_comparison(tmp_path / "bake", steps=1)
    results = json.loads((tmp_path / "bake" / "results.json").read_text())
    for arms in (None, 5, [5], [{"name": "a", "runs": 5}], {"a": 1}):
        (tmp_path / "bake" / "results.json").write_text(json.dumps({**results, "arms": arms}))
        with pytest.raises(UserError):
            server.page.write_report(tmp_path / "bake")
