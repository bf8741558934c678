"""The `etude` command: starts Python again with the environment of `etude.process`, then runs the program."""

from __future__ import annotations

import os
import sys

from etude.process import environment


def main() -> None:
    if sys.platform == "linux" and "ETUDE_LAUNCHED" not in os.environ:
        # -P: nothing is imported from the working directory because it happens to be called like a module.
        os.execve(sys.executable, [sys.executable, "-P", "-m", "etude", *sys.argv[1:]], environment())
    for stream in (sys.stdout, sys.stderr):  # a terminal without UTF-8 shows "?" for what it lacks
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    from etude.cli import run  # now: torch reads the environment when it is imported

    sys.exit(run(sys.argv[1:]))
