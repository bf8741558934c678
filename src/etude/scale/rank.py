"""One rank: `python -m etude.scale.rank PIPE RANK COUNT PLACE BACKEND GPU DEADLINE`, started by `scale.ranks`."""

from __future__ import annotations

import os
import sys
import threading
import time
from multiprocessing.connection import Connection


def main() -> None:
    number, rank, count, place, backend, gpu, deadline = sys.argv[1:]
    pipe = Connection(int(number))
    parent = os.getppid()

    def watch() -> None:  # in a collective call nobody reads the pipe
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    from etude.scale.ranks import greet, join, serve

    greet(pipe)
    serve(pipe, join(int(rank), int(count), place, backend, gpu, float(deadline)))
    os._exit(0)  # without the driver there is no parting in peace


if __name__ == "__main__":
    main()
