"""What a person sees in the terminal: progress while training, and the last screen. Progress goes to standard
error, so that standard output stays for facts. Text from models is cleaned before it gets here.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from etude.printable import clean

BARS = "▁▂▃▄▅▆▇█"
SHOWN: tuple[tuple[str, str, str], ...] = (  # metric, its name on the screen, its unit
    ("reward", "reward", "%"),
    ("signal", "signal", "%"),
    ("length", "length", "tokens"),
    ("entropy", "entropy", "nats"),
    ("kl_start", "KL from start", "nats"),
    ("gap", "gap", "nats"),
    ("tokens_per_second", "speed", "tokens/s"),
)
PARTS = ("rollout", "check", "train", "other")


def sparkline(values: list[float], width: int = 24) -> str:
    """The last `width` values as bars between their least and their greatest."""
    last = values[-width:]
    low, high = min(last, default=0.0), max(last, default=0.0)
    return "".join(
        BARS[round((len(BARS) - 1) * (v - low) / (high - low))] if high > low else BARS[0] for v in last
    )


class Progress:
    """Training as one screen that is drawn over, or as a line per step where output is not a terminal.
    There is no thread and nothing to close: whatever is printed next stands below."""

    def __init__(self, budget: Any, quiet: bool = False, file: TextIO | None = None) -> None:
        self.budget, self.quiet = budget, quiet
        self.console = Console(file=file or sys.stderr, highlight=False)
        self._history: dict[str, list[float]] = {}
        self._drawn = 0  # lines of the screen that stand above the cursor

    def __call__(self, step: int, metrics: Mapping[str, Any], fraction: float) -> None:
        """Shows step `step`, with `fraction` in [0, 1] of the budget spent."""
        if self.quiet:
            return
        for name, _, _ in SHOWN:
            if isinstance(metrics.get(name), int | float):
                self._history.setdefault(name, []).append(float(metrics[name]))
        if not self.console.is_terminal:
            self.console.print(Text(line(step, metrics, fraction)), soft_wrap=True)
            return
        self._wipe()
        screen = Panel(
            self._screen(metrics, fraction), title=f"step {step}", title_align="left", border_style="dim"
        )
        lines = self.console.render_lines(screen)
        self.console.print(screen)
        self._drawn = len(lines)

    def say(self, text: str) -> None:
        """A sentence between the steps."""
        if not self.quiet:
            self._wipe()
            self.console.print(Text(clean(text)), soft_wrap=True)

    def _wipe(self) -> None:
        if self._drawn:
            self.console.file.write(f"\x1b[{self._drawn}F\x1b[J")
            self._drawn = 0

    def _screen(self, metrics: Mapping[str, Any], fraction: float) -> Group:
        table = Table.grid(padding=(0, 2))
        for name, label, unit in SHOWN:
            if name in self._history:
                values = self._history[name]
                table.add_row(
                    Text(label, style="dim"), Text(amount(values[-1], unit), style="bold"), sparkline(values)
                )
        width = 30
        full = round(width * min(1.0, max(0.0, fraction)))
        bar = Text.assemble(
            ("━" * full, "cyan"),
            ("━" * (width - full), "dim"),
            f" {100 * fraction:.0f}% of {_of(self.budget)}{left(metrics.get('seconds'), fraction)}",
        )
        return Group(table, Text(split(metrics), style="dim"), bar)


def _of(budget: Any) -> str:
    number, unit = getattr(budget, "amount", None), getattr(budget, "unit", "")
    return f"{amount(number, '')} {unit}" if isinstance(number, int | float) else "the budget"


def amount(value: float, unit: str) -> str:
    """A number as people write it: `61.2 %`, `1.4M tokens`."""
    if value != value:
        return "not finite"
    if unit == "%":
        return f"{100 * value:.1f}%"
    for letter, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e4)):
        if abs(value) >= scale:
            return f"{value / (1e3 if letter == 'k' else scale):.3g}{letter} {unit}".strip()
    return f"{value:.4g} {unit}".strip()


def split(metrics: Mapping[str, Any]) -> str:
    """Where the seconds of a step went, in shares."""
    times = {part: float(metrics.get(f"time/{part}") or 0.0) for part in PARTS}
    whole = sum(times.values())
    shares = (
        ", ".join(f"{part} {100 * value / whole:.0f}%" for part, value in times.items())
        if whole
        else "unknown"
    )
    return f"{whole:.1f} s: {shares}"


def left(seconds: Any, fraction: float) -> str:
    """`, about 4 min left` where `seconds` were spent on `fraction` of the work; empty where that cannot be told."""
    if not isinstance(seconds, int | float) or not 0 < fraction < 1 or not seconds > 0:
        return ""
    rest = float(seconds) * (1 - fraction) / fraction
    for unit, size in (("h", 3600), ("min", 60)):
        if rest >= size:
            return f", about {rest / size:.2g} {unit} left"
    return f", about {rest:.0f} s left"


class Count:
    """How far work goes that takes more than a few seconds: a line that is drawn over, or now and then a line where output is
    no terminal. Called after each part with how many are done, of how many."""

    def __init__(self, what: str, every: float = 30.0, file: TextIO | None = None) -> None:
        self.what, self.every, self.file = what, every, file or sys.stderr
        self.terminal = self.file.isatty()
        self.begin = self.said = time.monotonic()

    def __call__(self, done: int, of: int) -> None:
        now = time.monotonic()
        if done < of and now - self.said >= (1.0 if self.terminal else self.every):
            self.said = now
            text = f"{self.what}: {done} of {of}{left(now - self.begin, done / of)}"
            self.file.write(f"\r\x1b[K{text}" if self.terminal else f"{text}\n")
            self.file.flush()
        elif done == of and self.terminal and self.said > self.begin:
            self.file.write("\r\x1b[K")
            self.file.flush()


def line(step: int, metrics: Mapping[str, Any], fraction: float) -> str:
    """One step in one line."""
    known = [
        (label, metrics[name], unit)
        for name, label, unit in SHOWN
        if isinstance(metrics.get(name), int | float)
    ]
    facts = "  ".join(f"{label} {amount(float(value), unit)}" for label, value, unit in known)
    return f"step {step} ({100 * fraction:.0f}%{left(metrics.get('seconds'), fraction)})  {facts}  {split(metrics)}"


def share(row: Mapping[str, Any] | list[float]) -> str:
    """`61.2% [57.9, 64.5]` of a mean with its interval, given as a mapping or as [mean, low, high]."""
    mean, low, high = row if isinstance(row, list) else (row["mean"], row["low"], row["high"])
    return f"{100 * mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}]"


def eval_screen(result: Mapping[str, Any]) -> str:
    """One evaluation: its accuracy, pass@k, by kind and level, and how it was measured."""
    rows = [("accuracy", share(result))]
    rows += [
        (f"  {name.replace('_', ' -> ')}", amount(float(value), "%"))
        for name, value in (result.get("attempts") or {}).items()
    ]
    rows += _correction(result.get("attempts") or {}, result.get("correction") or {})
    rows += [(f"pass@{k}", share(value)) for k, value in (result.get("pass") or {}).items()]
    rows += [(f"majority@{k}", share(value)) for k, value in (result.get("majority") or {}).items()]
    rows += [(f"  {name}", share(value)) for name, value in (result.get("kinds") or {}).items()]
    rows += [(f"  difficulty {name}", share(value)) for name, value in (result.get("levels") or {}).items()]
    rows += abstention_rows(result.get("abstention") or {})
    rows += inference_rows(result.get("inference") or {})
    rows.append(("length", amount(float(result.get("length") or 0), "tokens")))
    rows += tool_rows(result)
    rows.append(("truncated", amount(float(result.get("truncated") or 0), "%")))
    if result.get("errors"):
        rows.append(("errors", f"{result['errors']} answers could not be judged and count nowhere"))
    return _columns(rows) + "\n" + how(result)


OUTCOMES = {
    "abstained": "abstained",
    "unanswerable": "  where there is no answer",
    "answerable": "  right where there is one",
    "selective": "  right of what was answered",
}


def abstention_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The third outcome, and how well confidence tells right answers from wrong ones."""
    if not found:
        return []
    rows = [
        (words, share(found["shares"][name])) for name, words in OUTCOMES.items() if found["shares"].get(name)
    ]
    if found["aurc"] is None:
        return rows
    precision = "" if found["ap"] is None else f", average precision {amount(found['ap'], '%')}"
    rows.append(("risk-coverage", f"AURC {found['aurc']:.3f}{precision}; by {found['confidence']}"))
    for part in (0.25, 0.5, 0.75, 1.0):
        point = next((p for p in found["curve"] if p[0] >= part * found["curve"][-1][0] - 1e-9), None)
        if point:
            rows.append((f"  {amount(point[0], '%')} covered", f"{amount(1 - point[1], '%')} of it right"))
    return rows


def tool_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Replies an attempt, and what it called."""
    found = result.get("tools") or {}
    turns = float(result.get("turns") or 1.0)
    rows = [("turns", f"{turns:.2f} replies an attempt")] if found or turns > 1 else []
    if not found:
        return rows
    bad = f"{amount(found['failed'], '%')} failed, {amount(found['unreadable'], '%')} could not be read"
    rows += [("calls", f"{found['calls']:.2f} an attempt, in {amount(found['called'], '%')} of them; {bad}")]
    return [*rows, *([("  price", f"{found['price']:.4g} an attempt")] if found["price"] else [])]


def inference_rows(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a method spent on a problem."""
    if not found:
        return []
    name = f"{found['method']}{' (oracle: it asks the checker)' if found['oracle'] else ''}"
    rows = [
        ("method", clean(name)),
        ("  FLOPs a problem", f"{found['flops']:.3g} charged, {found['measured_flops']:.3g} measured"),
        ("  tokens a problem", f"{found['tokens']:.4g} in {found['calls']:.3g} calls"),
        ("  prompts shared", amount(float(found["shared"]), "%")),
    ]
    if found["exhausted"]:
        rows.append(
            (
                "  budget ended first",
                f"{amount(float(found['exhausted']), '%')} of the problems ({found['limit']})",
            )
        )
    return rows


def _correction(shares: Mapping[str, float], found: Mapping[str, float]) -> list[tuple[str, str]]:
    """Both probabilities of a second attempt, and the identity that makes the accuracy of them."""
    rows = []
    if "confidence" in found:
        rows.append(("  right again if right", amount(found["confidence"], "%")))
    if "critique" in found:
        rows.append(("  right now if wrong", amount(found["critique"], "%")))
    if "relative" in found:
        first, second = shares["first"], shares["second"]
        kept, mended = found["confidence"], found["critique"]
        rows += [
            ("  together", f"{second:.3f} = {first:.3f} x {kept:.3f} + {1 - first:.3f} x {mended:.3f}"),
            ("  relative", f"{found['relative']:.3f} (0.5: as if it had not been asked again)"),
        ]
    return rows


def how(result: Mapping[str, Any]) -> str:
    """The card of a result, in a sentence."""
    sampling = result.get("sampling")
    if isinstance(sampling, Mapping):
        greedy = sampling.get("greedy")
        sampling = (
            "greedy"
            if greedy
            else f"temperature {sampling.get('temperature')}, top-p {sampling.get('top_p', 1)}"
        )
    return clean(
        f"{result.get('problems')} problems of {result.get('name')} x {result.get('samples')} samples,"
        f" 95% intervals; {sampling}, seed {result.get('seed')}, checkpoint: {result.get('rule')}"
    )


def final_screen(summary: Mapping[str, Any]) -> str:
    """A finished run: accuracy before and after, its cost, and where everything lies."""
    before, after = summary.get("before"), summary.get("after")
    head = f"{summary.get('recipe')}: {summary.get('steps')} steps in {summary.get('minutes', 0):.1f} minutes"
    rows: list[tuple[str, str]] = []
    if before and after:
        rows.append(("held-out accuracy", f"{share(before)}  ->  {share(after)}"))
        for k, value in (after.get("pass") or {}).items():
            first = (before.get("pass") or {}).get(k)
            rows.append((f"pass@{k}", f"{share(first)}  ->  {share(value)}" if first else share(value)))
    elif before:
        rows.append(("held-out accuracy", share(before)))
    tokens = summary.get("tokens") or {}
    rows.append(("tokens", ", ".join(f"{amount(float(n), '')} {use}" for use, n in tokens.items()) or "none"))
    rows += [(f"from step {entry['step']} on", told(entry)) for entry in summary.get("history") or []]
    rows += [(name, str(summary[name])) for name in ("model", "report") if summary.get(name)]
    ended = f"{head}; {summary.get('ended') or 'done'}"
    card = [how(after or before or {})] if before else []
    return "\n".join([clean(ended), _columns(rows), *card])


def told(entry: Mapping[str, Any]) -> str:
    """What was changed, of an entry of a run's history."""
    return clean(", ".join(f"{what} {was} -> {now}" for what, (was, now) in entry["changed"].items()))


def _columns(rows: list[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"  {clean(name):<{width}}{clean(value)}" for name, value in rows)
