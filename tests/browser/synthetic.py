"""Runs and comparisons made of real types and invented numbers, for tests of the report."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from etude.evaluate.abstention import risk_coverage
from etude.report.health import Health
from etude.report.run import RunDirectory
from etude.train.metrics import step_metrics
from etude.types import Array, Episode, Failure, Group, Message, Signal, Span, Task, Verdict

KINDS = ("chain_sum", "spell_backward", "maze")
ARMS = ("chain_sum@1", "chain_sum@2", "spell_backward@1", "maze@1")
MALICIOUS = (
    "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "\x1b[31mred\x1b[0m \x00 \u202egnp.exe\u202c javascript:alert(1) {{script}} {{data}} <!-- & \u2028"
)


class Words:
    """A tokenizer of words, with bytes for what is not ASCII, so that characters are cut in two."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = [bytes([i]) for i in range(256)]
        self.ids: dict[bytes, int] = {piece: i for i, piece in enumerate(self.pieces)}

    def encode(self, text: str) -> Array:
        out: list[int] = []
        for part in re.findall(r" ?[A-Za-z]+|<\|\w+\|>|[\x00-\x7f]|[^\x00-\x7f]", text):
            raw = part.encode()
            if len(raw) > 1 and part.isascii():
                if raw not in self.ids:
                    self.ids[raw] = len(self.pieces)
                    self.pieces.append(raw)
                out.append(self.ids[raw])
            else:
                out += list(raw)
        return np.array(out, np.int32)

    def decode(self, tokens: Array) -> str:
        return b"".join(self.pieces[int(token)] for token in tokens).decode("utf-8", "replace")


def never(answer: str) -> Verdict:
    raise AssertionError("tests of the report judge nothing")


def make_task(rng: np.random.Generator, kind: str) -> Task:
    a, b = (int(n) for n in rng.integers(10, 99, 2))
    asks = {
        "chain_sum": (f"State the final answer to the following arithmetic problem: {a} + {b} =", str(a + b)),
        "spell_backward": (f"Spell this word backward: étude{a}", f"étude{a}"[::-1]),
        "maze": (f"You stand at {a}. The door is at {b}. How many steps?", str(abs(a - b))),
    }
    prompt, answer = asks[kind]
    return Task((Message("user", prompt),), never, kind=kind, difficulty=float(a % 3 + 1), answer=answer)


def make_episode(
    words: Words, rng: np.random.Generator, task: Task, index: int, skill: float, said: str | None = None
) -> Episode:
    """An attempt that is right with probability `skill`, with a second try when the first is wrong."""
    spans = [Span("user", words.encode(f"<|im_start|>user\n{task.prompt[0].content}<|im_end|>\n"))]
    verdicts = []
    for attempt in range(2):
        right = rng.random() < skill
        guess = task.answer if right else str(rng.integers(100, 999))
        text = said or f"Let me think. The answer of this is → {guess}.\nSo it is {guess}.<|im_end|>"
        tokens = words.encode(text)
        logp = -rng.exponential(1.4 - skill, len(tokens))
        spans.append(Span("assistant", tokens, True, logp.astype(np.float32), tag="attempt"))
        feedback = "" if right else f"That is not right: {guess} is not what was asked for. Try again."
        verdicts.append(Verdict(float(right), right, feedback))
        if right or index % 2 or attempt:
            break
        spans.append(Span("user", words.encode(f"<|im_start|>user\n{feedback}<|im_end|>\n"), tag="feedback"))
    stop = "length" if rng.random() < 0.15 * (1 - skill) else "end"
    scores = {"reward": verdicts[-1].reward, "format": float(rng.random() < skill)}
    return Episode(
        task, tuple(spans), "policy", index, tuple(verdicts), scores, stop, 1, None, {"tries": len(verdicts)}
    )


def make_step(
    words: Words,
    rng: np.random.Generator,
    skill: float,
    tasks: int = 4,
    samples: int = 6,
    nasty: bool = False,
) -> tuple[list[Group], list[Signal]]:
    """Groups with one failed episode now and then, and the signals of a group-mean credit."""
    groups, signals = [], []
    for number in range(tasks):
        task = make_task(rng, KINDS[number % len(KINDS)])
        said = [MALICIOUS if nasty and number == 0 and i == 0 else None for i in range(samples)]
        episodes = [make_episode(words, rng, task, i, skill, said[i]) for i in range(samples)]
        failed = ()
        if rng.random() < 0.05:
            broken = Failure(
                "check", "ValueError: no number in it", "Traceback (most recent call last):\n  ..."
            )
            failed = (Episode(task, episodes[-1].spans, index=samples, stop="error", failure=broken),)
        groups.append(Group(task, tuple(episodes), failed=failed))
        mean = float(np.mean([e.reward for e in episodes]))
        for e in episodes:
            fade = 1 - 0.6 * np.linspace(0, 1, len(e.tokens))
            credit = (e.sampled * fade * (e.reward - mean)).astype(np.float32)
            after = np.minimum(e.logp + 0.2 * credit, 0) * e.sampled  # one group is scored again
            signals.append(Signal(e, credit, extras={"after": after} if number == 0 else {}))
    return groups, signals


def extra_metrics(step: int, steps: int, rng: np.random.Generator, collapse: bool) -> dict[str, Any]:
    """The metrics that only a trainer could know."""
    done = step / max(1, steps)
    entropy = 1.1 - 0.7 * done + 0.03 * rng.normal()
    if collapse and done > 0.7:
        entropy = 0.05 * (1 - done)
    arms = {arm: 0.25 + 0.2 * math.sin(3 * done + i) for i, arm in enumerate(ARMS)}
    return {
        "signal_tokens": 0.6 - 0.3 * done,
        "entropy": max(0.001, entropy),
        "kl_start": 0.08 * done + 0.004 * abs(rng.normal()),
        "gap": 2e-6 * (1 + abs(rng.normal())),
        "grad_norm": 0.6 + 0.2 * abs(rng.normal()),
        "clip": 0.02 * abs(rng.normal()),
        "loss/policy": 0.02 * rng.normal(),
        "loss/kl": 0.001 * done,
        **{f"time/{part}": base * (1 + 0.1 * rng.random()) for part, base in TIMES.items()},
        "tokens_per_second": 900 + 60 * rng.normal(),
        "tokens/generated": 2400 * step,
        "tokens/trained": 3800 * step,
        "flops": 1.4e12 * step,
        "seconds": 2.6 * step,
        "rss_mb": 1900 + 2 * rng.random(),
        "curriculum": arms,
    }


TIMES = {"rollout": 1.5, "check": 0.05, "train": 0.9, "other": 0.1}


def make_eval(step: int, skill: float) -> dict[str, Any]:
    half = 0.035
    parts = {kind: skill * (1 - 0.2 * i) for i, kind in enumerate(KINDS)}
    kinds = {k: {"mean": v, "low": max(0.0, v - 0.06), "high": min(1.0, v + 0.06)} for k, v in parts.items()}
    return {
        "step": step, "flops": 1.4e12 * step, "tokens": 2400 * step, "seconds": 2.6 * step, "name": "held-out",
        "problems": 200, "samples": 8, "seed": 1, "sampling": {"temperature": 1.0, "max_tokens": 64}, "rule": "last",
        "mean": skill, "low": skill - half, "high": skill + half,
        "pass": {"1": [skill, skill - half, skill + half], "8": [min(1, skill + 0.2), skill + 0.15, min(1, skill + 0.25)]},
        "kinds": kinds, "abstention": made_abstention(step, skill), "truncated": 0.02, "length": 21.0, "per_problem": [["k", 3, 8]] * 200,
    }  # fmt: skip


def made_abstention(step: int, skill: float) -> dict[str, Any]:
    """Outcomes of 40 samples of which 10 abstain, the surest of the others right."""
    right = [i < 30 * skill for i in range(30)]
    share = {"mean": 0.25, "low": 0.1, "high": 0.4, "problems": 40}
    shares = {"answerable": share, "unanswerable": None, "abstained": share, "selective": share}
    return {
        "shares": shares, "words": ["I don't know"], "confidence": "likelihood", "answered": 30,
        **risk_coverage([1 - i / (40 + step) for i in range(30)], right, 40),
    }  # fmt: skip


def make_run(
    path: Path,
    steps: int = 20,
    seed: int = 0,
    tasks: int = 4,
    samples: int = 6,
    best: float = 0.8,
    collapse: bool = False,
) -> RunDirectory:
    """A run of `steps` steps whose skill grows to `best`, with evaluations, findings and one nasty answer."""
    rng, words, health = np.random.default_rng(seed), Words(), Health(patience=2)
    config = {"recipe": "grpo", "model": "smollm2", "tasks": "chain_sum,spell_backward,maze", "seed": seed,
              "optimizer": {"learning_rate": 1e-5, "warmup": 5},
              "history": [{"step": steps // 2, "etude": "0.2.0", "changed": {"update.lr": [1e-5, 3e-6]}}]}  # fmt: skip
    card = {"etude": "0.1.0", "torch": "2.13.0+cpu", "commit": "0" * 40, "machine": {"cores": 2, "amx": True}}
    run = RunDirectory.create(path, config, card)
    run.write_eval(make_eval(0, 0.12))
    for step in range(1, steps + 1):
        skill = 0.12 + (best - 0.12) * (1 - math.exp(-3 * step / steps))
        groups, signals = make_step(words, rng, skill, tasks, samples, nasty=step == steps)
        metrics = step_metrics(groups, extra_metrics(step, steps, rng, collapse))
        run.write_step(step, metrics, signals, groups, words.decode)
        for finding in health.observe(step, metrics):
            run.write_finding(finding.to_dict())
        if step % max(1, steps // 5) == 0:
            run.write_eval(make_eval(step, skill))
    return run


def make_comparison(path: Path, steps: int = 6) -> Path:
    """Four arms, two seeds; one arm is broken, one is the untrained model."""
    arms = []
    for i, (name, best) in enumerate((("untrained", 0.12), ("grpo", 0.62), ("grpo+sec", 0.7), ("rft", 0.3))):
        runs = [f"{name}/seed-{seed}" for seed in (0, 1)] if i else []
        for seed, run in enumerate(runs):
            make_run(path / run, steps, seed, tasks=3, samples=4, best=best)
        arms.append(make_arm(name, i, best, runs))
    results = {
        "kind": "comparison", "arms": arms, "problems": 200, "samples": 8, "seeds": [0, 1], "card": {"etude": "0.1.0"},
        "tuning": {"grpo": {"3e-05": 0.41, "1e-05": 0.28}},
        "verdict": "grpo+sec is better than grpo by 8.0 points [2.1, 13.8]; rft is not ranked: its answers were cut off.",
    }  # fmt: skip
    (path / "results.json").write_text(json.dumps(results))
    return path


def make_arm(name: str, i: int, best: float, runs: list[str]) -> dict[str, Any]:
    curve = []
    for n in range(6):
        skill = 0.12 + (best - 0.12) * (1 - math.exp(-2.5 * n / 5))
        point = {"fraction": n / 5, "flops": 4e13 * n, "tokens": 60000 * n, "seconds": 55.0 * n}
        curve.append({**point, "mean": skill, "low": skill - 0.05, "high": skill + 0.05})
    away = 100 * (best - 0.62)
    return {
        "name": name, "recipe": name, "valid": i != 3, "cause": "truncated 71% of its answers" if i == 3 else None,
        "settings": {"learning_rate": 1e-5 * (1 + (i == 2)), "temperature": 1.0}, "runs": runs, "curve": curve,
        "final": {"mean": best, "low": best - 0.05, "high": best + 0.05},
        "difference": None if i in (0, 3) else {"points": away, "low": away - 6, "high": away + 6, "p": 0.01, "p_holm": 0.02},
        "best_probability": [0.0, 0.08, 0.92, 0.0][i], "tokens": 300000, "seconds": 275.0, "alone": i != 1,
    }  # fmt: skip
