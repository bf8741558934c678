"""`etude view`: a folder of runs on localhost. It answers on 127.0.0.1 alone, reads and never writes, and
knows runs only by the names it found itself, so that no request can name any other file.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import webbrowser
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from etude.errors import UserError
from etude.printable import say
from etude.report import data, json_files, page
from etude.report.run import RunDirectory, is_run

DEPTH = 4  # folders below the served one in which runs are looked for
PAGE = 4000  # episodes in one answer, about
MOST_STEPS = 2000  # step files whose episodes are listed
MOST_WRITTEN = 5000  # written tasks that are listed, the newest


class Library:
    """The runs and comparisons below one folder, by the names they are served under."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._light: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
        self._lock = threading.Lock()

    def names(self) -> dict[str, Path]:
        """Every run and comparison there is now; the folder itself is called `.`."""
        found: dict[str, Path] = {}
        level = [self.root]
        for _ in range(DEPTH + 1):
            below: list[Path] = []
            for path in level:
                here = is_run(path) or (path / "results.json").is_file()
                if here:
                    found[path.relative_to(self.root).as_posix()] = path
                if not is_run(path):
                    below += _folders(path)
            level = below
        return found

    def find(self, name: str) -> Path:
        """The directory served as `name`. Raises KeyError for anything else."""
        return self.names()[name]

    def run(self, name: str) -> RunDirectory:
        return RunDirectory.open(self.find(name))

    def listing(self) -> list[dict[str, Any]]:
        """A line for each run and comparison."""
        return [self._line(name, path) for name, path in self.names().items()]

    def _line(self, name: str, path: Path) -> dict[str, Any]:
        line: dict[str, Any] = {"name": name, "kind": "run" if is_run(path) else "comparison"}
        try:
            return {**line, **(_comparison(path) if line["kind"] == "comparison" else _run(path))}
        except UserError as error:
            return {**line, "broken": str(error)}
        except Exception as error:  # whatever one directory holds, or no longer holds, the others are listed
            return {**line, "broken": f"this cannot be read: {type(error).__name__}: {error}"}

    def episodes(self, name: str, after: int) -> dict[str, Any]:
        """One page of the list of episodes: whole steps later than `after`."""
        run = self.run(name)
        all_steps = run.steps()
        steps = [step for step in data.thin(all_steps, MOST_STEPS) if step > after]
        rows: list[dict[str, Any]] = []
        last = after
        for step in steps:
            rows += self._step(name, run, step)
            last = step
            if len(rows) >= PAGE:
                break
        whole = len(all_steps) <= MOST_STEPS
        return {"rows": rows, "last": last, "more": bool(steps) and last != steps[-1], "whole": whole}

    def _step(self, name: str, run: RunDirectory, step: int) -> list[dict[str, Any]]:
        key = (name, step, run.episode_file(step).stat().st_mtime_ns)
        with self._lock:
            if key not in self._light:
                self._light[key] = data.light(run, step)
            return self._light[key]

    def group(self, name: str, episode: str) -> list[dict[str, Any]]:
        """The episode with that id and the rest of its group, in full. Raises KeyError without it."""
        run = self.run(name)
        step = int(episode.split("-")[0])
        rows = self._step(name, run, step) if run.episode_file(step).exists() else []
        mine = {row["id"]: row["group"] for row in rows}[episode]
        return data.full(run, step, [r for r in rows if r["id"] == episode or mine == r["group"] >= 0])


def writes(path: Path) -> bool:
    """Whether a model wrote tasks in this run."""
    return (path / "written.jsonl").exists()


def _comparison(path: Path) -> dict[str, Any]:
    results = page.read_results(path)
    return {"verdict": str(results["verdict"]), "arms": len(results["arms"])}


def _run(path: Path) -> dict[str, Any]:
    run = RunDirectory(path)
    metrics, evals = run.metrics(), data.evaluations(run.evals())["shown"]
    last = metrics[-1] if metrics else {}
    return {
        "recipe": str(run.config["recipe"]),
        **{name: _number(last.get(name)) for name in ("step", "reward", "seconds")},
        "first": _mean(evals[0]) if evals else None,
        "last": _mean(evals[-1]) if evals else None,
        "findings": len(run.findings()),
        "changed": max((p.stat().st_mtime for p in path.glob("*.jsonl")), default=0),
    }


def _mean(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the list shows of an evaluation. TypeError where it is no number."""
    return {name: float(result[name]) for name in ("step", "mean", "low", "high")}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _folders(path: Path) -> list[Path]:
    """What may hold runs. A folder that vanished meanwhile, or that nobody may look into, holds none."""
    try:
        return sorted(p for p in path.iterdir() if _plain_folder(p))
    except OSError:
        return []


def _plain_folder(path: Path) -> bool:
    """A folder that is no link and not hidden: links could lead out of what is served."""
    return path.is_dir() and not path.is_symlink() and not path.name.startswith(".")


class Handler(BaseHTTPRequestHandler):
    """GET only. Every path and query is looked up, none is opened."""

    library: Library
    protocol_version = "HTTP/1.1"
    timeout = 30  # seconds after which a connection that asks for nothing is ended

    def do_GET(self) -> None:
        host = (self.headers.get("Host") or "").rsplit(":", 1)[0]
        if host not in ("127.0.0.1", "localhost"):  # a foreign name that resolves to this machine
            return self._send(HTTPStatus.FORBIDDEN, b"this server answers to localhost only", "text/plain")
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        try:
            if url.path == "/":
                self._page(query.get("run"))
            elif url.path.startswith("/api/"):
                self._json(self._answer(url.path.removeprefix("/api/"), query))
            else:
                raise KeyError(url.path)
        except ConnectionError:
            self.close_connection = True  # nobody listens any more
        except (KeyError, ValueError, FileNotFoundError):
            self._send(HTTPStatus.NOT_FOUND, b"nothing of that name is here", "text/plain")
        except Exception as error:
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            self._send(
                HTTPStatus.INTERNAL_SERVER_ERROR, said.encode(errors="replace"), "text/plain; charset=utf-8"
            )

    def _answer(self, what: str, query: dict[str, str]) -> Any:
        library = self.library
        if what == "list":
            return {"root": library.root.name, "runs": library.listing()}
        if what == "run":
            return data.summary(library.run(query["run"]), int(query.get("after", 0)))
        if what == "episodes":
            return library.episodes(query["run"], int(query.get("after", -1)))
        if what == "written":
            rows = library.run(query["run"]).written()
            return {"rows": rows[:MOST_WRITTEN], "total": len(rows)}
        if what == "group":
            return library.group(query["run"], query["id"])
        raise KeyError(what)

    def _page(self, name: str | None) -> None:
        content: dict[str, Any] = {"kind": "home", "name": self.library.root.name}
        if name is not None:
            path = self.library.find(name)
            content = {"kind": "run", "name": path.name, "run": name, "writes": writes(path)}
            if not is_run(path):
                results = page.read_results(path)
                prefix = "" if name == "." else f"{name}/"
                arms = [run for arm in results["arms"] for run in arm.get("runs") or [] if writes(path / run)]
                content = {"kind": "comparison", "name": path.name, "results": results, "prefix": prefix}
                content["writes"] = arms
        self._send(HTTPStatus.OK, page.build(content, live=True).encode(), "text/html; charset=utf-8")

    def _json(self, value: Any) -> None:
        body = json.dumps(json_files.plain(value), allow_nan=False, separators=(",", ":")).encode()
        self._send(HTTPStatus.OK, body, "application/json")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not worth a line each."""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away in the middle of an answer is no news."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def make_server(directory: str | Path, port: int = 0) -> ThreadingHTTPServer:
    """A server for `directory` on 127.0.0.1, not yet running; port 0 takes a free one. Raises UserError."""
    root = Path(directory)
    if not root.is_dir():
        raise UserError(f"'{root}' is not a directory; name a folder that holds runs")
    handler = type("BoundHandler", (Handler,), {"library": Library(root)})
    try:
        return _Server(("127.0.0.1", port), handler)
    except OSError as error:
        raise UserError(f"port {port} cannot be used: {error.strerror}; choose another --port") from None


def serve(directory: str | Path, port: int = 0, open_browser: bool = False) -> None:
    """Serves the runs in `directory` until interrupted, and says where. Raises UserError."""
    server = make_server(directory, port)
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    say(f"{address}  (Ctrl-C ends it)")
    if open_browser:
        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()
