"""What must stand in a process's environment before its heap starts.

On virtual machines fresh pages cost more than arithmetic: with these allocator settings memory that was freed
stays with the process, which halves the first step's time and most of the system time.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
ENVIRONMENT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "67108864",
    # torch and oneDNN each remember products prepared for a number of rows, 1,024 by default: hundreds of megabytes
    # that a run takes hundreds of steps to fill.
    "LRU_CACHE_CAPACITY": "64",
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def environment() -> dict[str, str]:
    """`os.environ` with the settings above where the user has not made them."""
    return {**ENVIRONMENT, **os.environ, "ETUDE_LAUNCHED": "1"}


def leash(parent: int) -> None:
    """This process ends when `parent` does, however that ends: a worker that nobody waits for would go on writing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:  # where the system tells nobody, and for a parent that ended before this line
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, name="etude-leash", daemon=True).start()
