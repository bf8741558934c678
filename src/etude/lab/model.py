"""The laboratory's model: about 0.7 million weights, one token a character, partly trained. It is trained once, in about
90 seconds of one core, and kept in the user's cache directory under a hash of all that determines it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from etude import cache as caches
from etude.lab.tasks import ITEMS, LETTERS, lab_task
from etude.lab.warmup import KIND_SHARES, LEVEL_SHARES, SHARES, SLIPS, warmup_signals, words
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.objective.imitation import cross_entropy
from etude.printable import say
from etude.train.step import Learner
from etude.update import Update

FORMAT = 1  # of the warm-up's code; a change makes caches anew
MADE = "made.json"  # written last: what the model is, and the hash of its weights


@dataclass(frozen=True)
class WarmUp:
    """The sizes, and the supervised training before any method: AdamW with a cosine rate on worked solutions."""

    layers: int = 4
    width: int = 128
    heads: int = 4
    steps: int = 900
    batch: int = 40  # solutions a step
    lr: float = 4e-3
    seed: int = 0
    precision: str = "bf16"

    @property
    def key(self) -> str:
        """Names the model: a change of anything that determines it gives another."""
        sample = [lab_task(kind, 1, 0, warm_up=True).key for kind in KIND_SHARES]
        content = [KIND_SHARES, LEVEL_SHARES, SHARES, SLIPS, ITEMS, LETTERS, words(), sample]
        text = json.dumps([FORMAT, asdict(self), content, torch.__version__])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def directory(warmup: WarmUp | None = None, cache: Path | None = None) -> Path:
    """The model, made now if it is not there or is damaged. `cache`: instead of the user's cache directory."""
    chosen = warmup or WarmUp()
    name = f"lab-{chosen.key}"

    def making(work: Path) -> None:
        say(f"etude: making the laboratory's model, once (a minute or two), in {work.parent}", err=True)
        make(chosen, work)

    return caches.made(cache / name if cache else caches.kept("models", name), _whole, making)


def make(warmup: WarmUp, place: Path) -> None:
    """Writes the model into `place`. One thread, so that the number of cores decides nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as blank:
            sizes = (warmup.layers, warmup.width, warmup.heads, warmup.heads)
            tiny_directory(blank, words(), *sizes, seed=warmup.seed)
            policy = Policy.load(blank, precision=warmup.precision)
        update = Update(lr=warmup.lr, warmup=20, decay="cosine")
        learner = Learner(policy, update, "warm-up", warmup.seed, micro_tokens=1 << 20)
        objective = cross_entropy()
        for step in range(warmup.steps):
            signals = warmup_signals(policy.renderer, warmup.batch, step, warmup.seed)
            learner.learn(objective, signals, step, step / warmup.steps)
        policy.save(place)
    finally:
        torch.set_num_threads(threads)
    about = {
        "making": asdict(warmup),
        "parameters": sum(p.numel() for _, p in policy.parameters()),
        "weights": _digest(place),
    }
    (place / MADE).write_text(json.dumps(about, indent=1), encoding="utf-8")


def facts(place: Path) -> dict[str, Any]:
    """What `make` noted about the model."""
    found: dict[str, Any] = json.loads((place / MADE).read_text(encoding="utf-8"))
    return found


def _whole(place: Path) -> bool:
    try:
        return bool(facts(place)["weights"] == _digest(place))
    except (OSError, ValueError, KeyError):
        return False


def _digest(place: Path) -> str:
    with (place / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()
