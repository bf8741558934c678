"""What the page draws, as plain JSON: a run's columns of numbers, its evaluations, and its episodes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from etude.report.run import RunDirectory

LIGHT = (
    *("id", "step", "group", "origin", "index", "kind", "difficulty", "player", "stop", "correct", "reward"),
    *("verdicts", "failure", "prompt", "spans", "after"),
)
CARD = ("problems", "samples", "seed", "sampling", "rule", "low", "high")
"""What an evaluation must carry to be shown as a result."""
PREVIEW = 90  # characters of a question or an answer in the list
MOST_TOKENS = 3000  # of one episode, in a page that must stand alone
PER_EPISODE, PER_TOKEN = 700, 16  # bytes of JSON, about
LEAST = -1000.0  # a log-probability that JSON can hold, where a token has become impossible
Rows = list[dict[str, Any]]
MOST_STEPS = 400  # step files that one page looks into


def digits(value: Any, places: int = 5) -> Any:
    """A number with `places` significant digits; None when it is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if not math.isfinite(value):
        return None
    return value if isinstance(value, int) else float(f"{value:.{places}g}")


def columns(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Metrics by name, one entry per step, None where a step lacks it. Nested ones become `outer/inner`."""
    flats = [dict(_flat(row)) for row in metrics]
    names = list(dict.fromkeys(name for row in flats for name in row))
    return {name: [digits(row.get(name)) for row in flats] for name in names}


def _flat(row: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        elif value is None or isinstance(value, int | float):
            yield f"{prefix}{name}", value


def evaluations(results: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Results that carry their card, and those refused with what they lack. Counts per problem stay on disk."""
    shown: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for result in results:
        row = {name: value for name, value in result.items() if name != "per_problem"}
        lacks = [name for name in ("mean", *CARD) if result.get(name) is None]
        if lacks:
            refused.append({"step": result.get("step"), "name": result.get("name"), "lacks": lacks})
        else:
            shown.append(row)
    return {"shown": shown, "refused": refused}


def summary(run: RunDirectory, after: int = 0) -> dict[str, Any]:
    """All of a run but its episodes; of the metrics, the lines from number `after` on."""
    metrics = run.metrics()
    return {
        "name": run.path.name,
        "config": run.config,
        "card": run.card,
        "lines": len(metrics),
        "metrics": columns(metrics[after:]),
        "evals": evaluations(run.evals()),
        "findings": run.findings(),
        "steps": len(run.steps()),
    }


def light(run: RunDirectory, step: int) -> list[dict[str, Any]]:
    """What the list of episodes shows of one step, a dictionary per row."""
    table = run.episodes([step], LIGHT).to_pylist()
    rewards: dict[int, list[float]] = {}
    for row in table:
        if row["origin"] == "group" and row["reward"] is not None:
            rewards.setdefault(row["group"], []).append(row["reward"])
    return [_light(row, rewards.get(row["group"], [])) for row in table]


def _light(row: Mapping[str, Any], rewards: Sequence[float]) -> dict[str, Any]:
    verdicts = json.loads(row["verdicts"])
    asked = [m["content"] for m in json.loads(row["prompt"]) if m["role"] == "user"]
    said = [span["text"] for span in row["spans"] if span["sampled"]]
    keep = ("id", "step", "group", "origin", "index", "kind", "difficulty", "player", "stop", "correct")
    return {
        **{name: row[name] for name in keep},
        "reward": digits(row["reward"]),
        "failed": row["failure"] is not None,
        "rescored": row["after"] is not None,
        "length": sum(span["end"] - span["start"] for span in row["spans"] if span["sampled"]),
        "spread": digits(float(np.ptp(rewards))) if rewards else 0,
        "change": digits(verdicts[-1]["reward"] - verdicts[0]["reward"]) if len(verdicts) > 1 else 0,
        "asked": _preview(asked[-1] if asked else ""),
        "said": _preview(said[-1] if said else ""),
    }


def _preview(text: str) -> str:
    text = " ".join(text[: 4 * PREVIEW].split())
    return text if len(text) <= PREVIEW else text[: PREVIEW - 1] + "…"


def full(
    run: RunDirectory, step: int, lights: Iterable[Mapping[str, Any]], most: int = 10**9
) -> list[dict[str, Any]]:
    """The episodes of a step that `lights` lists, with all that their page shows: at most `most` tokens each."""
    wanted = {row["id"]: row for row in lights}
    table = run.episodes([step])
    table = table.filter(pc.is_in(table["id"], pa.array(sorted(wanted), pa.string())))
    return [{**wanted[row["id"]], **_full(row, most)} for row in table.to_pylist()]


def _full(row: Mapping[str, Any], most: int) -> dict[str, Any]:
    sampled = np.array(row["sampled"][:most], bool)
    logp = row["logp"][:most]
    weights = json.loads(row["weights"]) if row["weights"] else {}
    return {
        "task_key": row["task_key"],
        "prompt": json.loads(row["prompt"]),
        "answer": row["answer"],
        "policy_version": row["policy_version"],
        "scores": json.loads(row["scores"]),
        "verdicts": json.loads(row["verdicts"]),
        "failure": json.loads(row["failure"]) if row["failure"] else None,
        "notes": json.loads(row["notes"]) if row["notes"] else None,
        "spans": [{k: v for k, v in span.items() if k != "text"} for span in row["spans"]],
        "cut": max(0, len(row["pieces"]) - most),
        "pieces": row["pieces"][:most],
        "logp": _sampled(logp, sampled),
        "after": None if row["after"] is None else _sampled(row["after"][:most], sampled),
        "credit": None if row["advantage"] is None else _even(row["advantage"][:most], sampled),
        "weights": {name: _even(values[:most], sampled) for name, values in weights.items()},
    }


def _sampled(logp: Sequence[float], sampled: np.ndarray) -> list[Any]:
    """Log-probabilities of the sampled tokens only."""
    return [digits(float(value), 4) for value in np.maximum(np.array(logp, float)[sampled], LEAST)]


def _even(values: Sequence[float], sampled: np.ndarray) -> float | list[Any]:
    """A row per token; one number where all sampled tokens share it and all others have none."""
    array = np.array(values, np.float64)
    inside = array[sampled]
    if len(inside) and np.all(inside == inside[0]) and not np.any(array[~sampled]):
        return float(digits(float(inside[0]), 4) or 0.0)
    return [digits(float(value), 4) for value in array]


def thin(steps: Sequence[int], most: int) -> list[int]:
    """At most `most` of `steps`, evenly spread, ends included."""
    if len(steps) <= most:
        return list(steps)
    return [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, most).round().astype(int))]


def sample(run: RunDirectory, budget: int) -> dict[str, Any]:
    """Whole groups of episodes, up to about `budget` bytes of JSON: first those that findings point at, then
    round by round over evenly spread steps, the most telling group of each step first."""
    wanted = {str(e) for finding in run.findings() for e in finding.get("episodes") or []}
    steps = run.steps()
    looked = sorted({*thin(steps, MOST_STEPS), *(int(e.split("-")[0]) for e in wanted if e[:1].isdigit())})
    queues: dict[int, list[Rows]] = {}
    urgent: list[tuple[int, Rows]] = []
    total = 0
    for step in looked:
        groups: dict[Any, Rows] = {}
        for row in light(run, step):
            total += 1
            groups.setdefault(row["group"] if row["group"] >= 0 else row["id"], []).append(row)
        for group in sorted(groups.values(), key=_telling):
            if wanted & {row["id"] for row in group}:
                urgent.append((step, group))
            else:
                queues.setdefault(step, []).append(group)
    whole = len(looked) == len(steps)
    rows = _fill(run, urgent + _rounds(queues), budget)
    return {
        "rows": rows,
        "total": total if whole else round(total * len(steps) / len(looked)),
        "whole": whole,
    }


def _telling(group: Rows) -> tuple[bool, float]:
    """Groups that show what the update did come first, then those with the widest rewards."""
    return not any(row["rescored"] for row in group), -group[0]["spread"]


def _rounds(queues: Mapping[int, list[Rows]]) -> list[tuple[int, Rows]]:
    """One group of each step, then a second of each, and so on; within a round, far steps come first, so
    that a round cut short still covers the run."""
    order = _spread(sorted(queues))
    depth = max((len(groups) for groups in queues.values()), default=0)
    return [(step, queues[step][r]) for r in range(depth) for step in order if r < len(queues[step])]


def _spread(steps: Sequence[int]) -> list[int]:
    """`steps` in an order whose every beginning covers the whole range: last, first, middle, quarters..."""
    if len(steps) < 3:
        return list(reversed(steps))
    order, gap = [steps[-1], steps[0]], len(steps) - 1
    seen = set(order)
    while len(order) < len(steps):
        gap = max(1, gap // 2)
        new = [s for s in steps[::gap] if s not in seen]
        seen |= set(new)
        order += new
    return order


def _fill(run: RunDirectory, order: Sequence[tuple[int, Rows]], budget: int) -> Rows:
    """The episodes of the first groups of `order` that fit, by step."""
    lengths: dict[int, dict[str, int]] = {}
    chosen: dict[int, Rows] = {}
    for step, group in order:
        if step not in lengths:
            table = run.episodes([step], ["id", "tokens", "notes"])
            sizes = pc.list_value_length(table["tokens"]).to_pylist()
            noted = pc.fill_null(pc.binary_length(table["notes"]), 0).to_pylist()
            costs = [PER_TOKEN * min(n, MOST_TOKENS) + more for n, more in zip(sizes, noted, strict=True)]
            lengths[step] = dict(zip(table["id"].to_pylist(), costs, strict=True))
        budget -= sum(PER_EPISODE + lengths[step][row["id"]] for row in group)
        if budget < 0:
            break
        chosen.setdefault(step, []).extend(group)
    return [row for step in sorted(chosen) for row in full(run, step, chosen[step], MOST_TOKENS)]
