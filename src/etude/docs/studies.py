"""Recorded outcomes of studies, as `etude study NAME --record` noted them, and the page that tells them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from etude.claims.verdict import LABELS, MEANING
from etude.docs.papers import table_row
from etude.files import read_json, write_atomically
from etude.studies import catalogue
from etude.study.declare import Study
from etude.study.session import sentence

FILE = Path(__file__).with_name("studies.json")
KEPT = ("question", "settings", "hypotheses", "means", "seconds")

HEAD = """\
# Studies: published findings, tested again

Made by `python -m etude.docs.method_docs` from the studies themselves and from recorded outcomes. A study is a finding that is
no method: arms that are trained or asked in different ways, what is measured of them, and hypotheses with the contrast that
decides each. All of it, the smallest effect that counts included, stands in one file of `src/etude/studies/` and was fixed before
the run; there was one run, and its outcome stands here whichever way it went.

    etude studies                                   # this list
    etude study inference_scaling                   # again, with the settings below
    etude study passk_after_rl -m my-model -t my_tasks.jsonl --budget 20-steps --seeds 2 --problems 20
    etude study passk_after_rl --plan               # what it will cost, measured

What is not given is as the study fixed it, but for the learning rate, which with another model is the recipes' own. Started again a study goes on where it stopped. In Python:
`etude.study("passk_after_rl", model="my-model", tasks="my_tasks.jsonl", budget="20-steps").verdicts`. A file of your own that
ends with `STUDY = Study(...)` is run by `etude study ./my_study.py`.

A table of problems is compared problem by problem, with the spread between seeds where something was trained, as in comparisons;
a number that a seed gives once is compared by Student's t over the seeds. Labels are those of [claims](claims.md):
"""


def read(file: Path = FILE) -> dict[str, Any]:
    """{study: outcome}; none where the file is missing."""
    found: dict[str, Any] = read_json(file) if file.exists() else {}
    return found


def note(results: Mapping[str, Any], file: Path = FILE) -> None:
    """Keeps the outcome of a study."""
    card = results["card"]
    kept = {name: results[name] for name in KEPT}
    kept |= {
        "commit": card["commit"],
        "processor": card["machine"]["processor"],
        "asked": _asked(results["asked"]),
    }
    everything = {**read(file), results["name"]: kept}
    write_atomically(file, json.dumps(dict(sorted(everything.items())), indent=1) + "\n")


def _asked(asked: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in asked.items() if k not in ("study", "trial")}


def outcome(study: Study, recorded: Mapping[str, Any]) -> str:
    """`gains: held; elsewhere: not held`, or that there is none."""
    found = recorded.get(study.name)
    if found is None:
        return "not yet run"
    old = "" if found["settings"] == study.digest else "with earlier settings: "
    return old + "; ".join(f"{h['name']}: {h['label']}" for h in found["hypotheses"])


def rows() -> list[tuple[str, str, str, str]]:
    """(study, year, question, outcome) of all studies."""
    recorded = read()
    return [(n, str(s.paper.year), s.question, outcome(s, recorded)) for n, s in catalogue().items()]


def studies_page(recorded: Mapping[str, Any] | None = None) -> str:
    """docs/studies.md."""
    recorded = read() if recorded is None else recorded
    lines = [HEAD, *(f"- **{name}**: {MEANING[name]}." for name in LABELS), ""]
    for name, study in catalogue().items():
        lines += [f"## {name}", "", *_study(study, recorded.get(name)), ""]
    return "\n".join(lines)


def _study(study: Study, found: Mapping[str, Any] | None) -> list[str]:
    d = study.defaults
    paper = (
        f"[{study.paper.title}]({study.paper.url}), {study.paper.year}"
        if study.paper.url
        else study.paper.title
    )
    said = [f"{study.question} {paper}.", ""]
    where = f"`{d.model}` on `{d.tasks}`, {d.problems} problems x {d.samples}" if d.model else "no model"
    runs = sum(len(a.training) for a in study.arms) * d.seeds
    said += [
        f"Fixed beforehand: {where}, {d.seeds} seeds"
        + (f", {runs} runs ({d.budget} a share of 1)." if runs else "."),
        "",
    ]
    said += [
        f"Arms: {', '.join(f'`{a.name}`' for a in study.arms)}. Measured: "
        + "; ".join(f"*{m.name}*, {m.says}" for m in study.measures)
        + ".",
        "",
    ]
    if study.departures:
        said += ["Departures: " + "; ".join(study.departures) + ".", ""]
    known = {h["name"]: h for h in found["hypotheses"]} if found else {}
    said += [table_row(("hypothesis", "least", "outcome")), table_row(["---"] * 3)]
    for h in study.hypotheses:
        told = sentence(known[h.name]).removeprefix(f"{h.name}: ") if h.name in known else "not yet run"
        said.append(table_row((h.says, f"{h.least:g} {study.measure(h.contrast[0][2]).unit}", told)))
    if found:
        old = "" if found["settings"] == study.digest else " Its settings have changed since."
        said += [
            "",
            f"Run at commit {found['commit'][:12]}, {found['seconds'] / 60:.1f} minutes on {found['processor']}.{old}",
        ]
    return said
