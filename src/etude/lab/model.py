"""The laboratory's models. The first has about 2.7 million weights, a word, a digit or a letter a token, was taught the
protocols once, and is shipped: making it takes a core a quarter of an hour, and other processors make other bits. The
second is SmolLM2-135M after some steps on the same examples, made at first use.

    python -m etude.lab.model [DIRECTORY]     # makes the first one again, in the package itself or elsewhere"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from etude import cache as caches
from etude import seeds
from etude.lab import teaching, vocabulary
from etude.lab.lessons import LESSONS
from etude.models import embedded
from etude.models.directory import read_config, read_tensors, write_json, write_tensors
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.objective.imitation import cross_entropy
from etude.printable import say
from etude.train.step import Learner
from etude.update import Update

SHIPPED = Path(__file__).parent / "taught"
MADE = "made.json"  # written last: how the model was made, and the hash of its weights


Course = tuple[float, tuple[tuple[str, int], ...]]  # the highest rate; lessons with their steps


@dataclass(frozen=True)
class Teaching:
    """The imitation of examples before any method, course by course and lesson by lesson, AdamW with a rate that falls as a
    cosine over a course; and the sizes of a model that is new. A course begins with the weights that are stored of the
    one before."""

    courses: tuple[Course, ...] = (
        (3e-3, (("copies", 400), ("lookups", 400), ("basics", 800), ("protocols", 3200))),
        (2e-3, (("drills", 500),)),
        (2e-3, (("practice", 1800),)),
        (2e-3, (("helped", 1700),)),
    )
    batch: int = 24  # examples a step
    seed: int = 0
    precision: str = "bf16"
    micro_tokens: int = 1 << 20
    layers: int = 6
    width: int = 192
    heads: int = 6

    @property
    def key(self) -> str:
        """Names the making: a change of the settings or of what is taught gives another."""
        drawn = [draw(seeds.generator(0, "key", i))[1] for draw in LESSONS.values() for i in range(300)]
        text = json.dumps([asdict(self), [[said.text for said in turns] for turns in drawn]])
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


SECOND = Teaching(((2e-4, (("protocols", 200),)),), batch=16, micro_tokens=2048)


def directory(how: Teaching | None = None, cache: Path | None = None) -> Path:
    """The first model: as it is shipped, or, taught as `how` says, made now if it is not in the `cache` (the user's cache
    directory) or is damaged there."""
    if how is None and _whole(SHIPPED):
        return SHIPPED
    how = how or Teaching()
    return _cached("lab", how.key, lambda place: make(how, place), cache)


def second_directory(how: Teaching = SECOND, cache: Path | None = None) -> Path:
    """The second model, made now if it is not there. Raises UserError where SmolLM2's wheel is not installed."""
    start = embedded.directory()
    key = hashlib.blake2b(f"{how.key} {start.name}".encode(), digest_size=8).hexdigest()
    return _cached("lab-smollm2", key, lambda place: make(how, place, start), cache)


def _cached(name: str, key: str, write: Callable[[Path], None], cache: Path | None) -> Path:
    called = f"{name}-{key}"

    def making(work: Path) -> None:
        say(
            f"etude: making the model '{name}', once (a quarter of an hour or more), in {work.parent}",
            err=True,
        )
        write(work)

    return caches.made(cache / called if cache else caches.kept("models", called), _whole, making)


def make(how: Teaching, place: Path, start: Path | None = None) -> None:
    """Writes the model, taught from random weights or from `start`, into `place`. One thread, so that the number of cores
    decides nothing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as blank:
            if start is None:
                words = vocabulary.tokenizer(teaching.words())
                tiny_directory(blank, words, how.layers, how.width, how.heads, how.heads, seed=how.seed)
            for number in range(len(how.courses)):
                policy = Policy.load(str(place if number else start or blank), precision=how.precision)
                teach(policy, how, number, place)
    finally:
        torch.set_num_threads(threads)
    about = {
        "key": how.key,
        "making": asdict(how),
        "parameters": sum(p.numel() for _, p in policy.parameters()),
        "weights": _digest(place),
    }
    write_json(place / MADE, about)


def teach(policy: Policy, how: Teaching, number: int, place: Path) -> None:
    """One course, after which the policy is stored in `place`."""
    rate, lessons = how.courses[number]
    before = sum(n for _, earlier in how.courses[:number] for _, n in earlier)
    update = Update(lr=rate, warmup=30, decay="cosine", beta2=0.95)
    learner = Learner(policy, update, "teaching", how.seed, micro_tokens=how.micro_tokens)
    objective = cross_entropy()
    steps = [lesson for lesson, n in lessons for _ in range(n)]
    for step, lesson in enumerate(steps):
        signals = teaching.signals(policy.renderer, lesson, how.batch, before + step, how.seed)
        found = learner.learn(objective, signals, step, step / len(steps))
        if step % 100 == 99:
            loss = found["loss/imitation"]
            print(f"etude: step {step + 1} of {len(steps)}, {lesson}: loss {loss:.3f}", file=sys.stderr)
    policy.save(place)
    if how.precision == "bf16":
        _halve(place)


def _halve(place: Path) -> None:
    """Stores the weights in bf16, as the forward pass reads them: half the bytes."""
    write_tensors([(name, t.to(torch.bfloat16)) for name, t in read_tensors(place)], place)
    write_json(place / "config.json", {**read_config(place), "dtype": "bfloat16"})


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


def main() -> None:
    """Makes the first model and puts it, whole, in its place."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED
    made = _cached("lab", Teaching().key, lambda place: make(Teaching(), place), target.parent)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(made, target)
    print(f"{target}: {json.dumps(facts(target))}")


if __name__ == "__main__":
    main()
