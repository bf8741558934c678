"""Which way of answering is worth its compute? Methods of inference on one model, at the same problems, no weight changed.

Every method answers every problem once for each seed; `--budget` bounds what one problem may cost. Differences are paired by
problem and, with several seeds, by the spread between them. What a method found is kept, so that a comparison started again
goes on where it stopped. `results.json` holds all of it; each arm's episodes, trees included, lie in `arms/NAME/seed-S`.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from etude.compare.comparison import Say, claim
from etude.compare.paired import compare as compare_tables
from etude.errors import UserError
from etude.evaluate.inference import Played, grid
from etude.evaluate.intervals import clustered
from etude.files import write_atomically
from etude.machine import card
from etude.report.run import RunDirectory
from etude.search.ledger import Limit
from etude.tasks.isolate import Pool
from etude.tools.spec import users_own
from etude.train.measure import (
    Exam,
    checked_settings,
    exam_tasks,
    examined_by,
    fitting,
    run_defaults,
    speaking,
)
from etude.train.settings import run_settings
from etude.train.setup import kit_of
from etude.types import Group

SHOWN = 24  # problems of an arm whose episodes are kept, with their trees


@dataclass(frozen=True)
class InferenceComparison:
    """What is compared, under which conditions."""

    methods: Sequence[str]  # `grid` of each: NAME:n=4,8
    model: str
    tasks: str
    out: Path
    limit: Limit = field(default_factory=Limit)
    seeds: Sequence[int] = (0,)
    problems: int | None = None
    changes: Mapping[str, str] = field(default_factory=dict)
    target: float = 3.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "only": "inference",
            "methods": list(self.methods),
            "model": self.model,
            "tasks": self.tasks,
            "limit": str(self.limit),
            "seeds": list(self.seeds),
            "problems": self.problems,
            "changes": dict(self.changes),
        }


def compare_inference(comparison: InferenceComparison, say: Say = print) -> dict[str, Any]:
    """Plays what is missing and returns the results, which stand in `out/results.json` as well. UserError for methods that
    cannot be built, before anything is sampled, and for another comparison in `out`."""
    arms = [method for words in comparison.methods for method in grid(words, comparison.limit)]
    names = [arm.name for arm in arms]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"'{twice[0]}' is named twice; give every method once")
    if len(arms) < 2:
        raise UserError("a comparison needs two methods at least, as in: majority:n=4,16 self_certainty:n=16")
    changes = {name.removeprefix("run."): value for name, value in comparison.changes.items()}
    checked_settings(changes)
    settings = run_settings(run_defaults(comparison.model), changes)
    notes: list[str] = []
    name, held = exam_tasks(comparison.tasks, None, comparison.problems, [comparison.model], notes.extend)
    lock = claim(comparison.out, comparison.to_dict())
    try:
        theirs = [part for task in held for part in (task.check, task.environment) if part]
        theirs += users_own(settings.tools)
        with (
            Pool(seconds=settings.check_seconds, known=theirs) as pool,
            closing(kit_of(settings, pool)) as kit,
        ):
            speaker = speaking(comparison.model, settings, changes, arms, kit=kit)
            problems = fitting(held, speaker.policy, settings.context)
            found: dict[str, list[dict[str, Any]]] = {}
            for arm in arms:
                for seed in comparison.seeds:
                    place = _place(comparison, arm, seed)
                    line = _finished(place)
                    if line is None:
                        say(f"{arm.label}, seed {seed}: {len(problems)} problems")
                        exam = Exam(name, problems, 1, seed, changes=changes, method=arm)
                        begin, kept = time.perf_counter(), list[Group]()
                        result = examined_by(speaker, comparison.model, exam, problems, pool, kept.extend)
                        line = {**result.to_dict(), "seconds": time.perf_counter() - begin}
                        _write(place, arm, line, kept, speaker.policy)
                    found.setdefault(arm.name, []).append(line)
        results = conclude(comparison, arms, found)
        write_atomically(comparison.out / "results.json", json.dumps(results, indent=1))
        return results
    finally:
        lock.release()


def _place(comparison: InferenceComparison, arm: Played, seed: int) -> Path:
    return comparison.out / "arms" / re.sub(r"[^\w.,=+-]", "_", arm.name) / f"seed-{seed}"


def _finished(place: Path) -> dict[str, Any] | None:
    lines = RunDirectory.open(place).evals() if (place / "config.json").exists() else []
    return lines[-1] if lines else None


def _write(place: Path, arm: Played, line: dict[str, Any], groups: Sequence[Group], policy: Any) -> None:
    """An arm's answers as a run of no steps: what the page shows of runs, it shows of them."""
    config = {
        "recipe": arm.recipe.name,
        "plan": {"recipe": arm.name},
        "settings": {},
        "stages": {"rollout": dict(arm.settings)},
    }
    run = RunDirectory.create(place, config, card(), overwrite=True)
    try:
        metrics = {
            "correct": line["mean"],
            "flops": line["inference"]["flops"],
            "tokens/generated": line["inference"]["tokens"],
        }
        decode = lambda tokens: policy.tokenizer.decode(tokens, special=True)  # noqa: E731
        run.write_step(0, metrics, [], groups[:SHOWN], decode)
        run.write_eval(line)
    finally:
        run.release()


def conclude(
    comparison: InferenceComparison, arms: Sequence[Played], found: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, Any]:
    """The results: what each method reached and spent, paired differences from the first, curves, and sentences."""
    tables = {arm.label: _accuracies(found[arm.name]) for arm in arms}
    base = arms[0].label
    fixed = tuple(tables) if len(comparison.seeds) < 2 else ()
    verdicts = compare_tables(tables, base=base, fixed=fixed, target=comparison.target)
    differences = {d.arm: d for d in verdicts.differences}
    rows = [_arm(comparison, arm, found[arm.name], differences.get(arm.label), verdicts.best) for arm in arms]
    first = found[arms[0].name][0]
    sentences = [d.verdict.replace("this run of ", "").rstrip(".") + "." for d in verdicts.differences]
    if asking := [arm.label for arm in arms if arm.oracle]:
        sentences.append(
            f"{', '.join(asking)}: no method that can be used, since the checker is asked on the way."
        )
    return {
        "kind": "inference",
        "contest": comparison.to_dict(),
        "base": base,
        "arms": rows,
        "curves": _curves(rows),
        "verdict": " ".join(sentences),
        "sentences": sentences,
        "problems": first["problems"],
        "samples": 1,
        "seeds": list(comparison.seeds),
        "budget": str(comparison.limit),
        "card": card(),
    }


def _accuracies(lines: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """float[S, P]."""
    keys = [key for key, _, _ in lines[0]["per_problem"]]
    table = []
    for line in lines:
        share = {key: correct / samples for key, correct, samples in line["per_problem"]}
        if share.keys() != set(keys):
            raise UserError(
                "the methods of this comparison got verdicts on different problems; see the errors of its arms"
            )
        table.append([share[key] for key in keys])
    return np.array(table)


def _arm(
    comparison: InferenceComparison,
    arm: Played,
    lines: Sequence[Mapping[str, Any]],
    d: Any,
    best: Mapping[str, float],
) -> dict[str, Any]:
    table = _accuracies(lines)
    band = clustered(table.mean(0), np.full(table.shape[1], len(lines)))
    point = {"mean": band.mean, "low": band.low, "high": band.high}
    spent = [line["inference"] for line in lines]
    means = {
        k: float(np.mean([s[k] for s in spent]))
        for k in ("flops", "tokens", "calls", "shared", "exhausted", "measured_flops")
    }
    seconds = float(np.mean([line["seconds"] for line in lines]))
    return {
        "name": arm.label,
        "recipe": arm.recipe.name,
        "oracle": arm.oracle,
        "valid": True,
        "cause": None,
        "runs": [os.path.relpath(_place(comparison, arm, s), comparison.out) for s in comparison.seeds],
        "curve": [{**point, "flops": means["flops"], "tokens": means["tokens"]}],
        "final": point,
        "difference": None
        if d is None
        else {
            "points": d.effect,
            "low": d.low,
            "high": d.high,
            "p": d.p,
            "p_holm": d.adjusted,
            "verdict": d.verdict,
        },
        "best_probability": best.get(arm.label, 0.0),
        **means,
        "seconds": seconds,
        "alone": True,
        "settings": dict(arm.settings),
    }


def _curves(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of every method and the settings in which its arms agree, its arms in the order of their FLOPs."""
    families: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        families.setdefault(f"{row['recipe']}{' (oracle)' if row['oracle'] else ''}", []).append(row)
    return [
        {
            "name": name,
            "valid": True,
            "curve": sorted((p for r in mine for p in r["curve"]), key=lambda p: p["flops"]),
        }
        for name, mine in families.items()
    ]


def screen(results: Mapping[str, Any]) -> str:
    """The results as one screen of text."""
    head = (
        "method",
        "accuracy",
        "95 %",
        "vs " + results["base"],
        "95 %",
        "p (Holm)",
        "best",
        "FLOPs",
        "tokens",
        "calls",
        "cut",
    )
    rows: list[tuple[str, ...]] = [head]
    for arm in sorted(results["arms"], key=lambda a: float(a["flops"])):
        d, final = arm["difference"], arm["final"]
        rows.append(
            (
                arm["name"],
                f"{100 * final['mean']:.1f}",
                f"{100 * final['low']:.1f}-{100 * final['high']:.1f}",
                "" if d is None else f"{d['points']:+.1f}",
                "" if d is None else f"{d['low']:+.1f} to {d['high']:+.1f}",
                "" if d is None else f"{d['p_holm']:.3g}",
                f"{arm['best_probability']:.0%}",
                f"{arm['flops']:.3g}",
                f"{arm['tokens']:.4g}",
                f"{arm['calls']:.3g}",
                f"{arm['exhausted']:.0%}",
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    facts = (
        f"{results['problems']} held-out problems, seeds {', '.join(map(str, results['seeds']))}; FLOPs, tokens and calls a "
        f"problem, in the order of FLOPs; {results['budget']}; cut: problems whose budget ended first"
    )
    return "\n".join([*lines, "", facts, *results["sentences"]])
