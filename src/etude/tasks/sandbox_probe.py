"""What the sandbox keeps in on this machine, found by trying: `etude doctor` prints it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from etude.errors import Refused
from etude.tasks import confinement
from etude.tasks.outcomes import Ended, Missing, Raised, Returned
from etude.tasks.sandbox import Limits, Sandbox

Answer = Returned | Raised | Missing | Ended
Try = Callable[..., Answer]


def enforced() -> dict[str, bool]:
    """{what is tried: whether it was prevented}; empty where programs are refused altogether."""
    try:
        with Sandbox(Limits(seconds=1.0), ahead=0) as box:

            def attempt(body: str, *arguments: object) -> Answer:
                with box.program() as program:
                    program.load(f"import os, socket\ndef f(a=None, b=None):\n    {body}")
                    return program.call("f", arguments)

            return {name: probe(attempt) for name, probe in PROBES.items()}
    except Refused:
        return {}


def _reading_files(attempt: Try) -> bool:
    with tempfile.NamedTemporaryFile("w") as secret:
        secret.write("secret")
        secret.flush()
        return attempt("return open(a).read()", secret.name) != Returned("secret")


def _writing_files(attempt: Try) -> bool:
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "written"
        attempt("open(a, 'w').write('x')", str(path))
        return not path.exists()


def _modes(attempt: Try) -> bool:
    with tempfile.NamedTemporaryFile() as mine:
        before = os.stat(mine.name).st_mode
        attempt("os.chmod(a, 0o777)", mine.name)
        return os.stat(mine.name).st_mode == before


def _network(attempt: Try) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        attempt("socket.create_connection(('127.0.0.1', a), 0.5)", server.getsockname()[1])
        try:
            server.accept()[0].close()
        except TimeoutError:
            return True
        return False


def _signals(attempt: Try) -> bool:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(30)"]) as other:
        attempt("os.kill(a, 9)", other.pid)
        try:
            other.wait(0.2)
        except subprocess.TimeoutExpired:
            other.kill()
            return True
        return False


def _environment(attempt: Try) -> bool:
    os.environ["ETUDE_PROBE"] = "secret"
    try:
        here = attempt("return os.environ.get('ETUDE_PROBE')")
        above = attempt("return b'ETUDE_PROBE' in open(f'/proc/{a}/environ', 'rb').read()", os.getpid())
    finally:
        del os.environ["ETUDE_PROBE"]
    return here != Returned("secret") and above != Returned(True)


def _processes(attempt: Try) -> bool:
    return isinstance(attempt("return os.fork()"), Raised)


def _memory(attempt: Try) -> bool:
    return not isinstance(attempt("return len(bytearray(8 << 30))"), Returned)


def _time(attempt: Try) -> bool:
    return isinstance(attempt("while True: pass"), Ended)


def _output(attempt: Try) -> bool:
    return not isinstance(attempt("return 'x' * 50_000_000"), Returned)


PROBES: dict[str, Callable[[Try], bool]] = {
    "reading files": _reading_files,
    "writing files": _writing_files,
    "modes of files": _modes,
    "the network": _network,
    "the environment": _environment,
    "signals to others": _signals,
    "new processes": _processes,
    "memory": _memory,
    "time": _time,
    "output": _output,
}


def sentence(found: dict[str, bool]) -> str:
    """One line: what kind of protection there is, and what of `enforced()` it did not prevent."""
    if not found:
        return "none: tasks that run programs are refused (no bubblewrap with user namespaces, no Landlock)"
    open_ = [name for name, kept in found.items() if not kept]
    kind = confinement.protection() or "none (unsafe execution is allowed)"
    return f"{kind}; closed: {', '.join(n for n, k in found.items() if k)}" + (
        f"; OPEN: {', '.join(open_)}" if open_ else ""
    )
