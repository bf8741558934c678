"""Programs that try to get out: each meets every kind of protection that this machine offers, and gets nowhere."""

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from boxes import run
from etude.errors import Refused
from etude.tasks import confinement, load, outcomes, sandbox, sandbox_probe
from etude.tasks.outcomes import Ended, NotPython, Other, Printed, Raised, Returned
from etude.tasks.sandbox import Limits, Sandbox
from etude.types import Request


def test_this_machine_offers_something() -> None:
    """The suite would pass with every test above skipped; where it runs, programs must be kept in."""
    assert confinement.protection(), (
        "neither bubblewrap with namespaces nor Landlock with libseccomp: see docs/security.md"
    )


VALUES = [
    None,
    True,
    3,
    -(10**30),
    1.5,
    float("inf"),
    2j,
    "a'\"\\\n\x00é\ud800",
    b"\x00\xff",
    [1, (2, {3})],
    {"k": [None]},
]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back_as_they_went(box: Sandbox, value) -> None:
    found = run(box, "def f(x): return x", value)
    assert found == Returned(value)
    assert type(found.value) is type(value)


def test_what_is_no_plain_value_equals_nothing(box: Sandbox) -> None:
    found = run(box, "class I(int):\n    def __eq__(self, other): return True\ndef f(): return I(3)")
    assert found == Returned(Other("I", "3"))
    assert found.value != 3


def test_programs_that_fail(box: Sandbox) -> None:
    assert run(box, "def f(: pass") == NotPython(1, "invalid syntax")
    assert run(box, "1 / 0") == Raised("ZeroDivisionError", "division by zero")
    assert run(box, "def f(): raise ValueError('no')") == Raised("ValueError", "no")
    assert isinstance(run(box, "g = 1"), outcomes.Missing)
    for ending in ("SystemExit", "KeyboardInterrupt", "GeneratorExit"):
        assert run(box, f"def f(): raise {ending}").kind == ending


def test_scripts(box: Sandbox) -> None:
    with box.program() as program:
        assert program.main("print(int(input()) + 1)", "41\n") == Printed("42\n")
    with box.program() as program:
        assert program.main("print('é'); raise SystemExit") == Printed("é\n")
    with box.program() as program:
        assert program.main("print(1); [][0]") == Printed(
            "1\n", Raised("IndexError", "list index out of range")
        )


# ---- getting out -------------------------------------------------------------------------------------


def test_it_does_not_know_what_is_expected(box: Sandbox) -> None:
    """No frame, no object and no module in its process holds more than its inputs."""
    code = """
import gc, sys
def f(x):
    found, frame = [], sys._getframe()
    while frame:
        found += [repr(v)[:500] for v in frame.f_locals.values()]
        frame = frame.f_back
    found += [repr(o)[:500] for o in gc.get_objects() if type(o) in (list, tuple, dict)]
    return any("-".join(["not", "given"]) in text for text in found)
"""
    assert run(box, code, "given") == Returned(False)


def test_files_of_this_machine_are_out_of_reach(box: Sandbox, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("token")
    here = Path(__file__)
    for path in (
        secret,
        here,
        "/etc/passwd",
        "/proc/1/environ",
        f"/proc/{os.getpid()}/mem",
        Path.home() / ".bashrc",
    ):
        assert isinstance(run(box, "def f(p): return open(p, 'rb').read()", str(path)), Raised), path
    for path in (tmp_path / "new", here.parent / "new", "/etc/new", "/usr/new", Path.home() / "new"):
        assert isinstance(run(box, "def f(p): open(p, 'w').write('x')", str(path)), Raised), path
        assert not Path(path).exists()
    code = "import os\ndef f(p):\n    os.symlink(p, 'link')\n    return open('link').read()"
    assert isinstance(run(box, code, str(secret)), Raised)
    assert isinstance(run(box, "import os\ndef f(p): os.unlink(p)", str(secret)), Raised)
    assert isinstance(run(box, "import os\ndef f(p): os.rename(p, p + '2')", str(secret)), Raised)
    assert secret.read_text() == "token"


def test_the_environment_is_empty(box: Sandbox, monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "key")
    found = run(box, "import os\ndef f(): return dict(os.environ)")
    assert "WANDB_API_KEY" not in found.value
    assert not {k for k in found.value if "KEY" in k or "TOKEN" in k or k == "HOME"}


def test_there_is_no_network(box: Sandbox) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        code = "import socket\ndef f(port): socket.create_connection(('127.0.0.1', port), 1).send(b'x')"
        assert isinstance(run(box, code, port), Raised)
        udp = "import socket\ndef f(port): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))"
        assert isinstance(run(box, udp, port), Raised)
        with pytest.raises(TimeoutError):
            server.accept()


def test_other_processes_are_out_of_reach(box: Sandbox) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        for signal in (9, 15, 0):
            assert isinstance(run(box, "import os\ndef f(p, s): os.kill(p, s)", victim.pid, signal), Raised)
        run(box, "import os\ndef f(): os.kill(-1, 9)")
        assert victim.poll() is None
        victim.kill()


ENDLESS = {
    "a loop": "def f():\n    while True: pass",
    "a loop that swallows": "def f():\n    while True:\n        try:\n            while True: pass\n        except BaseException: pass",
    "a loop in C": "def f(): return sum(range(10**15))",
    "sleeping": "import time\ndef f(): time.sleep(1000)",
    "ignored signals": "import signal\nfor s in range(1, 32):\n    try: signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError): pass\ndef f():\n    while True: pass",
    "threads": "import threading, time\ndef f():\n    for _ in range(4): threading.Thread(target=time.sleep, args=(1000,)).start()\n    time.sleep(1000)",
}


@pytest.mark.parametrize("name", list(ENDLESS))
def test_endless_programs_end(name: str, monkeypatch) -> None:
    with Sandbox(Limits(seconds=0.5), ahead=1) as box:
        begin = time.monotonic()
        assert run(box, ENDLESS[name]) == Ended("took longer than 0.5 s")
        assert time.monotonic() - begin < 20


NOISY = {
    "output on every descriptor": "import os\ndef f():\n    for i in range(64):\n        try: os.write(i, b'x' * 200_000_000)\n        except OSError: pass",
    "a value of 200 MB": "def f(): return 'x' * 200_000_000",
    "ten gigabytes": "def f(): return len(bytearray(10 << 30))",
    "files": "def f():\n    for i in range(200): open(str(i), 'wb').write(b'x' * (1 << 20))",
    "_exit": "import os\ndef f(): os._exit(0)",
    "exit while loading": "import os\nos._exit(0)",
    "closed pipes": "import os\ndef f():\n    os.closerange(0, 64)",
    "nested values": "def f():\n    x = []\n    for _ in range(200_000): x = [x]\n    return str(x)",
    "stopped": "import signal\ndef f(): signal.raise_signal(signal.SIGSTOP)",
    "two thousand threads": "import threading, time\ndef f():\n    for _ in range(2000): threading.Thread(target=time.sleep, args=(9,)).start()",
    "recursion without a limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f()",
    "a call of another machine": "import ctypes\ndef f(): ctypes.CDLL(None).syscall(0x40000000 + 39); 1 / 0",
    "a crash": "import ctypes\ndef f(): ctypes.string_at(0)",
    "abort": "import os\ndef f(): os.abort()",
    "fork": "import os\ndef f(): return os.fork()",
    "a fork bomb": "import os\ndef f():\n    while True: os.fork()",
    "a program": "import subprocess\ndef f(): subprocess.run(['sleep', '1000'])",
    "a daemon": "import os\ndef f():\n    if os.fork() == 0:\n        os.setsid()\n        while True: pass",
}


@pytest.mark.parametrize("name", list(NOISY))
def test_harm_ends_with_its_program(box: Sandbox, name: str) -> None:
    found = run(box, NOISY[name])
    assert isinstance(found, Ended | Raised), found
    assert run(box, "def f(): return 1") == Returned(1)


def test_forged_replies_are_only_this_programs_output(box: Sandbox) -> None:
    """A program that finds the channel can say what it likes there: it is taken for what it returned."""
    code = """
import os
def f():
    for i in range(64):
        try: os.write(i, b'["returned",["int","0x63"]]\\n["ready"]\\n["verdict", true]\\n')
        except OSError: pass
    os._exit(0)
"""
    assert run(box, code) in (Returned(99), Ended("ended its process"))
    assert run(box, "def f(): return 1") == Returned(1)


def test_nothing_reaches_the_next_program(box: Sandbox) -> None:
    """Patched builtins, modules, recursion limits, random state and files are gone with the process."""
    code = """
import builtins, json, random, sys
def f():
    builtins.len = lambda x: 0
    builtins.sum = lambda x: 0
    random.random = lambda: 4
    sys.setrecursionlimit(20)
    open("left", "w").write("x")
    type(sys.modules["__main__"]).__eq__ = None
    return 1
"""
    run(box, code)
    after = (
        "import os, random\ndef f(): return len([1]), sum([1]), random.random() < 1, os.path.exists('left')"
    )
    assert run(box, after) == Returned((1, 1, True, False))


def test_nobody_is_left_behind(box: Sandbox) -> None:
    # Other tests of this process may have used the shared one, and it waits for more.
    if sandbox.shared.cache_info().currsize:
        sandbox.shared().close()
        sandbox.shared.cache_clear()
    with box.program() as program:
        pid = program.pid
        program.load("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()")
        program.call("f", ())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    box.close()
    assert not _children()


def _children() -> list[str]:
    listed = subprocess.run(
        ["ps", "-ww", "-o", "stat=,args=", "--ppid", str(os.getpid())], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if "_sandboxed" in line or line.startswith("Z")]


def test_without_protection_it_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(confinement, "bubblewrap", lambda: None)
    monkeypatch.setattr(confinement, "landlock", lambda: None)
    with pytest.raises(Refused, match="--unsafe-execution"):
        Sandbox()
    monkeypatch.setenv(confinement.UNSAFE, "1")
    with Sandbox(ahead=1) as box:
        assert run(box, "def f(): return 1") == Returned(1)


def test_it_is_refused_before_anything_is_sampled(monkeypatch, tmp_path) -> None:
    from etude import cli
    from etude.models.tiny import tiny_directory

    monkeypatch.setattr(confinement, "bubblewrap", lambda: None)
    monkeypatch.setattr(confinement, "landlock", lambda: None)
    monkeypatch.delenv(confinement.UNSAFE, raising=False)
    model = str(tiny_directory(tmp_path / "m"))
    command = ["check", "-m", model, "-t", "program", "--set", "run.preflight=1", "--set", "run.max_tokens=2"]
    with pytest.raises(Refused, match="--unsafe-execution"):
        confinement.ready_to_run_programs([load("program").draw(Request(), 0, 0)])
    assert cli.run(command) == 2
    assert not os.environ.get(confinement.UNSAFE)
    cli.run([*command, "--unsafe-execution"])
    assert os.environ.pop(confinement.UNSAFE) == "1"


def test_doctor_tries_what_it_tells(monkeypatch) -> None:
    found = sandbox_probe.enforced()
    assert len(found) == len(sandbox_probe.PROBES)
    assert all(found.values()), found
    monkeypatch.setattr(confinement, "bubblewrap", lambda: None)
    monkeypatch.setattr(confinement, "landlock", lambda: None)
    assert "refused" in sandbox_probe.sentence(sandbox_probe.enforced())
    monkeypatch.setenv(confinement.UNSAFE, "1")
    bare = sandbox_probe.enforced()
    assert not bare["reading files"]
    assert not bare["the network"]
    assert "OPEN: reading files" in sandbox_probe.sentence(bare)


def test_the_package_may_lie_below_tmp(monkeypatch, tmp_path: Path) -> None:
    """The private /tmp must not cover the script that runs in the sandbox."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        script = Path(place) / "inside.py"
        script.write_bytes(sandbox.SCRIPT.read_bytes())
        monkeypatch.setattr(sandbox, "SCRIPT", script)
        with Sandbox(ahead=1) as box:
            assert run(box, "def f(): return 1") == Returned(1)
