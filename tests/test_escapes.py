"""Ways out of the sandbox that need no open file, that stay behind, or that aim at who reads the output."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from boxes import run
from etude.tasks.outcomes import Ended, Other, Raised, Returned
from etude.tasks.sandbox import Sandbox

LIBC = "import ctypes\nlibc = ctypes.CDLL(None)\n"
REACHING = {
    "a signal by number": LIBC + "def f(pid, path): return libc.syscall(234, pid, pid, 9) == 0 or 1 / 0",
    "a signal by a descriptor": "import fcntl, os\ndef f(pid, path):\n    r, w = os.pipe()\n    fcntl.fcntl(r, fcntl.F_SETOWN, pid)\n"
    "    fcntl.fcntl(r, 10, 9)\n    fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\n    os.write(w, b'x')",
    "limits": "import resource\ndef f(pid, path): resource.prlimit(pid, resource.RLIMIT_CPU, (1, 1))",
    "priority": "import os\ndef f(pid, path): os.setpriority(os.PRIO_PROCESS, pid, 19)",
    "processors": "import os\ndef f(pid, path): os.sched_setaffinity(pid, [0])",
    "mode": "import os\ndef f(pid, path): os.chmod(path, 0o777)",
    "owner": "import os\ndef f(pid, path): os.chown(path, -1, -1)",
    "times": "import os\ndef f(pid, path): os.utime(path, (1, 1))",
    "attributes": "import os\ndef f(pid, path): os.setxattr(path, 'user.x', b'1')",
    "newer attributes": LIBC
    + "def f(pid, path): return libc.syscall(463, -100, path.encode(), 0, b'user.x', 0, 0) == 0 or 1 / 0",
    "length": "import os\ndef f(pid, path): os.truncate(path, 0)",
    "a link": "import os\ndef f(pid, path): os.link(os.__file__, path + '2')",
    "a pipe": "import os\ndef f(pid, path): os.mkfifo(path + '2')",
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="two of them name system calls by number")
@pytest.mark.parametrize("name", list(REACHING))
def test_what_needs_no_open_file_is_out_of_reach_too(box: Sandbox, tmp_path: Path, name: str) -> None:
    mine = tmp_path / "mine"
    mine.write_text("x")
    os.utime(mine, (5, 5))
    before = os.stat(mine)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as victim:
        try:
            assert isinstance(run(box, REACHING[name], victim.pid, str(mine)), Raised)
            assert victim.poll() is None
            assert os.sched_getaffinity(victim.pid) == os.sched_getaffinity(0)
        finally:
            victim.kill()
    after = os.stat(mine)
    assert (after.st_mode, after.st_mtime, after.st_size) == (before.st_mode, before.st_mtime, 1)
    assert not os.listxattr(mine)
    assert os.listdir(tmp_path) == ["mine"]


KEPT = {
    "shared memory": LIBC + "def f(): return libc.shmget(0x4711, 1 << 20, 0o1666)",
    "semaphores": LIBC + "def f(): return libc.semget(0x4711, 1, 0o1666)",
    "messages": LIBC + "def f(): return libc.msgget(0x4711, 0o1666)",
    "a queue": LIBC + "def f(): return libc.mq_open(b'/x', 0o102, 0o666, None)",
    "memory behind a descriptor": LIBC + "def f(): return libc.memfd_create(b'x', 0)",
}


@pytest.mark.parametrize("name", list(KEPT))
def test_memory_that_outlives_or_evades_its_limits_is_refused(box: Sandbox, name: str) -> None:
    assert run(box, KEPT[name]) == Returned(-1)


def test_what_it_says_harms_neither_terminals_nor_this_process(box: Sandbox) -> None:
    """Control codes in a forged exception, and a set whose elements all share one hash: 14 s to build it here, once."""
    said = run(box, FORGED.format(r'["raised","\\u001b[2J","\\u001b]0;x\\u0007"]'))
    assert said == Raised("\\x1b[2J", "\\x1b]0;x\\x07")
    code = FORGED.format('["returned",["{}",[EACH]]]')
    for kind, one in (("set", '["int","{}"]'), ("dict", '[["int","{}"],null]')):
        items = f"','.join({one!r}.format(hex(k * (2**61 - 1))) for k in range(1, 20000))"
        assert isinstance(run(box, code.replace("{}", kind).replace("EACH", "' + " + items + " + '")), Ended)


FORGED = """
import os
def f():
    data = ('{}' + chr(10)).encode()
    for number in range(3, 8):
        try:
            left = data
            while left: left = left[os.write(number, left):]
        except OSError: pass
    os._exit(0)
"""


@pytest.mark.parametrize(
    "returned",
    [
        "type('S', (str,), {'__eq__': lambda s, o: True, '__hash__': str.__hash__})('x')",
        "type('L', (list,), {'__eq__': lambda s, o: True})([1])",
        "(i for i in range(3))",
        "type('R', (), {'__reduce__': lambda s: (print, ())})()",
        "range(3)",
        "float",
    ],
)
def test_nothing_that_only_pretends_is_equal(box: Sandbox, returned: str) -> None:
    found = run(box, f"def f(): return {returned}")
    assert isinstance(found.value, Other)
    nested = run(box, f"def f(): return [{returned}]")
    assert isinstance(nested.value[0], Other)
    assert nested.value not in (["x"], [[1]], [[0, 1, 2]])
