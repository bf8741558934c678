import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

os.environ.setdefault("OMP_NUM_THREADS", "1")  # models of a few thousand weights: a second thread only waits

# The tests are those of the CPU's engine, whose numbers are exact; what needs a GPU is asked for: pytest -m gpu.
if "gpu" not in sys.argv:
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

# A shell that starts the tests in the background has its children ignore Ctrl-C, and so would every program that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _any_width(monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, so no width: the readline library, where something imports it, writes one into the environment."""
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("LINES", raising=False)


pytest_plugins = ["boxes"]  # the fixture `box`
