"""An episode turn by turn, as it was recorded: who spoke, and what of it was trained, how strongly."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from etude.errors import UserError
from etude.printable import clean
from etude.report.run import RunDirectory
from etude.report.terminal import told
from etude.rollout.full import LEFT_OUT, SUMMED_UP

Row = Mapping[str, Any]


def turns(row: Row) -> list[dict[str, Any]]:
    """One entry per span of a recorded episode: `role`, `tag`, `text`, `sampled`, `restart` (a conversation of its own
    begins here), and `trained`: {loss term: (tokens, mean advantage, mean weight)} of the tokens that it acts on."""
    if row["weights"] is not None:
        weights = json.loads(row["weights"])
    else:
        weights = {"policy": [float(s) for s in row["sampled"]]} if row["advantage"] is not None else {}
    found = []
    for span in row["spans"]:
        at = range(span["start"], span["end"])
        trained = {}
        for name, mask in weights.items():
            on = [i for i in at if mask[i]]
            if on:
                advantage = sum(row["advantage"][i] for i in on) / len(on)
                trained[name] = (len(on), advantage, sum(mask[i] for i in on) / len(on))
        keep = {name: span[name] for name in ("role", "tag", "text", "sampled", "restart")}
        found.append({**keep, "trained": trained})
    return found


def chosen(path: str | Path, episode: str) -> list[Row]:
    """The recorded episode called `episode` ("<step>-<row>"), and the sequences that credit made of it: a second
    attempt without its help, say. Without a name, the newest one whose first attempt failed and whose last was
    right; where there is none, the newest that was right, else the newest. Raises UserError where there is none."""
    run = RunDirectory.open(path)
    steps = run.steps()
    if episode:
        name = episode.partition("-")[0]
        steps = [s for s in steps if str(s) == name]
    fits = [lambda r: r["id"] == episode] if episode else [_mended, _right, lambda r: r["origin"] == "group"]
    for fit in fits:
        for step in reversed(steps):
            rows = run.episodes([step]).to_pylist()
            one = next(filter(fit, rows), None)
            if one is not None:
                mine = [r for r in rows if r["origin"] == "signal" and _twin(r, one) and r["id"] != one["id"]]
                return [one, *mine]
    what = f"no episode '{episode}'" if episode else "no episode"
    raise UserError(f"there is {what} in '{path}'; episodes are called STEP-ROW, such as 3-0")


def _right(row: Row) -> bool:
    return row["origin"] == "group" and bool(row["correct"])


def _mended(row: Row) -> bool:
    verdicts = json.loads(row["verdicts"] or "[]")
    return (
        row["origin"] == "group" and len(verdicts) > 1 and not verdicts[0]["correct"] and bool(row["correct"])
    )


def _twin(a: Row, b: Row) -> bool:
    return all(a[name] == b[name] for name in ("task_key", "index", "player"))


def screen(rows: Sequence[Row], history: Sequence[Mapping[str, Any]] = ()) -> str:
    """Turn by turn, as text for a terminal or a document. `history`: of the run, to say what was changed before."""
    one, *made = rows
    scores = ", ".join(f"{name} {value:g}" for name, value in json.loads(one["scores"] or "{}").items())
    lines = [f"episode {one['id']}, {one['kind']}: {scores}"]
    lines += [f"since step {e['step']}: {told(e)}" for e in history if e["step"] < one["step"]]
    for reply, messages in json.loads(one.get("notes") or "{}").get(LEFT_OUT, ()):
        lines.append(f"before reply {reply + 1}: {messages} earlier messages left out of the context")
    for reply, messages, tokens in json.loads(one.get("notes") or "{}").get(SUMMED_UP, ()):
        lines.append(f"before reply {reply + 1}: {messages} earlier messages summed up in {tokens} tokens")
    verdicts = json.loads(one["verdicts"] or "[]")
    said = 0  # verdicts shown; a sequence that credit made may begin with the second attempt
    spans = turns(one)
    for i, turn in enumerate(spans):
        lines += ["", *_turn(turn)]
        over = not any(t["tag"] == turn["tag"] and t["sampled"] for t in spans[i + 1 :])
        numbered = re.fullmatch(r"attempt (\d+)", turn["tag"])
        at = int(numbered[1]) - 1 if numbered else said
        if turn["tag"].startswith(("attempt", "move")) and over and at < len(verdicts):
            verdict, said = verdicts[at], at + 1
            lines.append(
                f"    verdict: {'right' if verdict['correct'] else 'wrong'}. {clean(verdict['feedback'])}".rstrip()
            )
    for name, note in json.loads(one.get("notes") or "{}").items():
        if isinstance(note, dict) and note.get("judgement"):
            lines += ["", f"[said of it: {name}]", *(f"    {line}" for line in note["judgement"].split("\n"))]
    for number, row in enumerate(made, 1):
        lines += ["", f"made of it by credit, {number} of {len(made)}: a sequence of its own"]
        for turn in turns(row):
            lines += ["", *_turn(turn)]
    return "\n".join(map(clean, lines))


def _turn(turn: Mapping[str, Any]) -> list[str]:
    marks = [
        f"{name}: {n} tokens, advantage {a:+.2f}, weight {w:.2f}"
        for name, (n, a, w) in turn["trained"].items()
    ]
    said = marks or (["not trained"] if turn["role"] == "assistant" else [])
    fresh = " (a new conversation)" if turn["restart"] else ""
    head = f"[{turn['role']}: {turn['tag']}{fresh}]" + (f"  <- {'; '.join(said)}" if said else "")
    return [head, *(f"    {line}" for line in clean(turn["text"]).split("\n"))]
