"""The README's table and docs/speed.svg, from bench/results/*.json.

    python bench/table.py [--check]

Writes between the markers `<!-- speed -->` and `<!-- /speed -->` of README.md. Nothing is measured here; a row whose bench
was not run is left out. `--check` changes nothing and fails where the README is not what would be written.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from contestants import HERE
from picture import COLOURS, document, text

ROOT = HERE.parent
BEGIN, END = "<!-- speed -->", "<!-- /speed -->"
STEPS = {"step": "8 x 8, 64", "step-16x16x64": "16 x 16, 64", "step-8x8x256": "8 x 8, 256"}


@dataclass(frozen=True)
class Row:
    """One line: what was compared, in words, and how many times faster (None: no peer)."""

    what: str
    etude: str
    peer: str
    ratio: float | None
    target: float | None = None
    bound: bool = False
    goal: str = ""  # a target that is no ratio

    @property
    def times(self) -> str:
        if self.ratio is None:
            return ""
        return f"**{'at least ' if self.bound else ''}{self.ratio:.{1 if self.ratio < 10 else 0}f}x**"


def rows(results: dict[str, Any]) -> list[Row]:
    out: list[Row] = []
    for name, size in STEPS.items():
        if r := results.get(name):
            out += _step(r, size)
    for r in results.get("sampling", {}).get("rows", []):
        each = f", {r['samples_per_prompt']} to a prompt" if r["samples_per_prompt"] > 1 else ""
        target = {1: 1.0, 16: 1.3}.get(r["batch"], 2.0)
        rates = [f"{r[who]['tokens_per_second']:,.0f} tokens/s" for who in ("etude", "peer")]
        out.append(
            Row(f"sampling, batch {r['batch']}{each}", rates[0], f"vLLM {rates[1]}", r["ratio"], target)
        )
    if r := results.get("forward_backward"):
        out.append(Row("forward and backward of completions", _s(r["etude"]), f"{r['peer']['name']} {_s(r['peer'])}",
                       r["ratio"], 6.0))  # fmt: skip
    if r := results.get("to_target"):
        what = f"from start to {r['target']:.0%} held-out accuracy"
        peer = _s(r["peer"]) if r["peer"]["reached"] else f"not in {_s(r['peer'])}"
        mine = _s(r["etude"]) if r["etude"]["reached"] else f"not in {_s(r['etude'])}"
        out.append(Row(what, mine, f"TRL {peer}", r.get("ratio"), 10.0, r.get("bound", False)))
    if r := results.get("startup"):
        out.append(Row("`etude train` to its first sampled token", _s(r["etude"]), "", None, goal="8 s"))
    if r := results.get("long_tail"):
        what = f"{r['what']} (rows refilled)"
        out.append(Row(what, _s(r["etude"]), f"waiting for the longest {_s(r['peer'])}", r["ratio"]))
    if r := results.get("turns"):
        out.append(
            Row(r["what"], _s(r["etude"]), f"every turn from its beginning {_s(r['peer'])}", r["ratio"])
        )
    if r := results.get("soak"):
        grown = f"{r['growth']:+.1%} after {r['warm_up']} steps"
        out.append(Row("peak memory over 500 steps", grown, "", None, goal="2 %"))
    return out


def _step(r: dict[str, Any], size: str) -> list[Row]:
    """A step's lines: equal work, as used, and memory."""
    peer, every, used = r["peer"], r["etude"], r["etude_as_used"]
    share = f"{every['share_of_peak']:.0%} of peak"
    name = f"GRPO step ({size} tokens)"
    memory = [f"{max(f['peak_mb'] for f in fs) / 1024:.1f} GB" for fs in ((every, used), (peer,))]
    if at_once := re.search(r"--peer-rows (\d+)", r["command"]):
        memory[1] += f", {at_once[1]} completions at a time"
    return [
        Row(f"{name}, every group trained", f"{_s(every)} ({share})", f"TRL {_s(peer)}", r["ratio"], 10.0),
        Row(f"{name}, as used", _s(used), f"TRL {_s(peer)}", r["ratio_as_used"], 10.0),
        Row(f"{name}, peak memory", memory[0], f"TRL {memory[1]}", 1 / r["memory_ratio"], 1 / 0.6),
    ]


def _s(facts: dict[str, Any]) -> str:
    seconds = facts["seconds"]
    return f"{seconds / 60:.1f} min" if seconds >= 120 else f"{seconds:.{1 if seconds >= 10 else 2}f} s"


def markdown(found: Sequence[Row], results: dict[str, Any]) -> str:
    lines = ["| SmolLM2-135M, one CPU machine | etude | instead | times | target |", "|---|---|---|---|---|"]
    for r in found:
        target = f"{r.target:.{0 if r.target >= 6 else 1}f}x" if r.target else r.goal
        lines.append(f"| {r.what} | {r.etude} | {r.peer} | {r.times} | {target} |")
    machine = next(iter(results.values()))["card"]["machine"]
    if any(r["card"]["machine"] != machine for r in results.values()):
        raise SystemExit("bench/results comes from several machines; run `make bench` on one")
    peaks = sorted(r["peak"]["gflops"] for r in results.values() if "peak" in r)
    at = f"; bf16 matrix products at {peaks[0]:,.0f}-{peaks[-1]:,.0f} GFLOP/s" if peaks else ""
    has = ", ".join(machine.get("instructions", [])) or "no AVX-512"
    lines += [
        "",
        f"Medians, contestants taking turns in one run, `make bench`; {machine['processor']}, {machine['cores']} cores, "
        f"{has}{at}. *As used*: groups whose rewards are all equal, which teach nothing, are left out; TRL computes them.",
        "",
        "![How many times faster etude is than each peer](docs/speed.svg)",
    ]
    return "\n".join(lines)


def draw(found: Sequence[Row]) -> str:
    """Bars of the ratios, with a tick at each target and a line at 1."""
    shown = [r for r in found if r.ratio is not None and r.target is not None]
    wide, left, line = 870, 340, 24
    top = max([10.0, *(r.ratio or 0 for r in shown), *(r.target or 0 for r in shown)]) * 1.08
    scale = (wide - left - 60) / top
    parts = [text(14, 24, "How many times faster, or smaller, than the peer", 15, weight="bold")]
    parts.append(
        text(
            14,
            42,
            "bar: measured, blue where the target (black tick) is met; thin line: 1, no difference",
            11,
        )
    )
    for i, r in enumerate(shown):
        y = 58 + i * line
        assert r.ratio is not None
        assert r.target is not None
        colour = COLOURS[0] if r.ratio >= r.target else COLOURS[1]
        parts.append(text(left - 8, y + 13, r.what.replace("`", ""), 12, "end"))
        parts.append(f'<rect x="{left}" y="{y}" width="{r.ratio * scale:.1f}" height="17" fill="{colour}"/>')
        at = left + r.target * scale
        parts.append(f'<rect x="{at - 1:.1f}" y="{y - 2}" width="2" height="21" fill="#24292f"/>')
        label = f"{'≥ ' if r.bound else ''}{r.ratio:.1f}"
        parts.append(text(left + max(r.ratio, r.target) * scale + 6, y + 13, label, 12))
    height = 58 + len(shown) * line + 12
    one = left + scale
    parts.append(f'<line x1="{one:.1f}" x2="{one:.1f}" y1="52" y2="{height - 10}" stroke="#57606a"/>')
    return document(wide, height, parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    a = parser.parse_args()
    results = {p.stem: json.loads(p.read_text()) for p in sorted((HERE / "results").glob("*.json"))}
    known = {*STEPS, "sampling", "forward_backward", "to_target", "startup", "long_tail", "turns", "soak"}
    results = {name: r for name, r in results.items() if name in known}
    if not results:
        raise SystemExit("bench/results holds no result of a speed bench yet; run `make bench`")
    found = rows(results)
    readme, picture = ROOT / "README.md", ROOT / "docs" / "speed.svg"
    old = readme.read_text()
    if BEGIN not in old or END not in old:
        raise SystemExit(f"README.md lacks the markers {BEGIN} and {END}")
    before, _, rest = old.partition(BEGIN)
    after = rest.partition(END)[2]
    new = f"{before}{BEGIN}\n{markdown(found, results)}\n{END}{after}"
    if a.check:
        same = new == old and picture.exists() and picture.read_text() == draw(found)
        raise SystemExit(0 if same else "README.md or docs/speed.svg is not what bench/results says")
    readme.write_text(new)
    picture.write_text(draw(found))
    print(f"{len(found)} rows -> README.md, docs/speed.svg")


if __name__ == "__main__":
    main()
