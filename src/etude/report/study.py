"""The page of a study: its verdicts with their intervals, and what was measured. One HTML file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = {
    "held": "#1a7f4b",
    "below the smallest effect": "#7aa874",
    "not held": "#6b7280",
    "reversed": "#b3261e",
}
OPEN = "#c08a2d"  # not resolved
WIDTH = 460  # of a drawn interval, pixels


def study_page(results: Mapping[str, Any], style: str) -> str:
    """The whole page, of what a study's results.json holds."""
    title = f"Study {results['name']}"
    paper, asked, card = results["paper"], results["asked"], results["card"]
    source = (
        f'<a href="{escape(paper["url"])}">{escape(paper["title"])}</a>'
        if paper["url"]
        else escape(paper["title"])
    )
    facts = {
        "model": asked["model"] or "none",
        "tasks": asked["tasks"] or "none",
        "budget of a run": asked["budget"],
        "seeds": asked["seeds"],
        "problems x samples": f"{asked['problems']} x {asked['samples']}",
        "settings": ", ".join(f"{k}={v}" for k, v in asked["changes"].items()) or "defaults",
        "seconds in all": f"{results['seconds']:.0f}",
        "commit": card.get("commit", ""),
    }
    parts = [
        f"<p>{escape(results['question'])}</p><p class='help'>{source}, {paper['year']}</p>",
        _section("Hypotheses", "".join(_hypothesis(h) for h in results["hypotheses"])),
        _section("What was measured", _means(results)),
        _section("Arms", _table(("arm", "what it is"), [(a["name"], a["says"]) for a in results["arms"]])),
        _section("Settings", _table(("", ""), list(facts.items()))),
    ]
    if results["departures"]:
        parts.append(_section("Departures from the paper", _list(results["departures"])))
    if results["failed"]:
        parts.append(_section("Failed", _list(results["failed"])))
    head = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{style}\nh1{{white-space:normal}}td,th{{padding:0.2rem 0.9rem 0.2rem 0;"
        "text-align:left;vertical-align:top}.scroll{overflow-x:auto}</style></head>"
    )
    return f"{head}<body><main><h1>{escape(title)}</h1>{''.join(parts)}</main></body></html>\n"


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><div class='card scroll'>{body}</div></section>"


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(i)}</li>' for i in items)}</ul>"


def _table(head: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    top = f"<tr>{''.join(f'<th>{escape(str(c))}</th>' for c in head)}</tr>" if any(head) else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(c))}</td>' for c in row)}</tr>" for row in rows)
    return f"<table>{top}{body}</table>"


def _means(results: Mapping[str, Any]) -> str:
    measures = results["measures"]
    head = ("arm", *(f"{m['name']} ({m['unit']})" for m in measures))
    rows = []
    for arm in results["arms"]:
        mine = results["means"].get(arm["name"], {})
        rows.append((arm["name"], *(f"{mine[m['name']]:.3g}" if m["name"] in mine else "" for m in measures)))
    return _table(head, rows) + _list([f"{m['name']}: {m['says']}" for m in measures])


def _hypothesis(h: Mapping[str, Any]) -> str:
    colour = COLOURS.get(h["label"], OPEN)
    lines = [
        f"<p><strong style='color:{colour}'>{escape(h['label'])}</strong> &nbsp; {escape(h['says'])}</p>"
    ]
    if "effect" in h:
        claimed = f"less than {h['least']:g} either way was claimed"
        if h["better"] != "same":
            claimed = f"{h['better']} was claimed, by at least {h['least']:g}"
        p = f", p (Holm) {h['p_holm']:.2g}" if "p_holm" in h else ""
        lines.append(
            f"<p class='help'>{h['effect']:+.3g} [{h['low']:+.3g}, {h['high']:+.3g}] {escape(h['unit'])}; {claimed}; visible from {h['visible']:.3g} on{p}</p>{_interval(h, colour)}"
        )
    else:
        lines.append(f"<p class='help'>{escape(h['why'])}</p>")
    return "".join([*lines, *(f"<p class='help'>{escape(g['sentence'])}</p>" for g in h["requires"])])


def _interval(h: Mapping[str, Any], colour: str) -> str:
    """The interval, with nothing and the smallest effect that counts marked."""
    least = h["least"] if h["better"] == "higher" else -h["least"]
    ends = (h["low"], h["high"], 0.0, least)
    low, high = min(ends), max(ends)

    def x(value: float) -> float:
        return 10 + (WIDTH - 20) * (value - low) / ((high - low) or 1.0)

    return (
        f"<svg width='{WIDTH}' height='26' role='img' aria-label='interval'>"
        f"<line x1='{x(0):.1f}' x2='{x(0):.1f}' y1='2' y2='24' stroke='#9ca3af'/>"
        f"<line x1='{x(least):.1f}' x2='{x(least):.1f}' y1='2' y2='24' stroke='#9ca3af' stroke-dasharray='3 3'/>"
        f"<line x1='{x(h['low']):.1f}' x2='{x(h['high']):.1f}' y1='13' y2='13' stroke='{colour}' stroke-width='2'/>"
        f"<circle cx='{x(h['effect']):.1f}' cy='13' r='4' fill='{colour}'/></svg>"
    )
