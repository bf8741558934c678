"""Episodes as rows of a table: what is kept of every attempt, and how tokens are shown to people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from etude.report.json_files import to_json
from etude.search.session import SEARCH
from etude.types import Array, Episode, Group, Signal

Decode = Callable[[Array], str]
BROKEN = "\ufffd"  # what decoders put for bytes that are not yet a character
LONGEST_CHARACTER = 8  # tokens that one character may be cut into before it is given up
NOTES_LIMIT = 4000  # characters of JSON kept of an episode's notes
TREE_LIMIT = 80_000  # and of a search's tree, which is cut where it is made (`search.session.NODES`)

SPAN = pa.struct(
    [
        ("role", pa.string()),
        ("tag", pa.string()),
        ("start", pa.int32()),
        ("end", pa.int32()),
        ("sampled", pa.bool_()),
        ("hidden", pa.bool_()),
        ("restart", pa.bool_()),
        ("text", pa.string()),
    ]
)

LATER = ("after",)  # columns that runs of earlier versions lack
SCHEMA = pa.schema(
    [
        ("id", pa.string()),  # "<step>-<row>", the name that findings and the page use
        ("step", pa.int32()),
        ("group", pa.int32()),  # number of the group within the step; -1: in no group
        ("origin", pa.string()),  # "group" | "failed" | "signal" (a sequence that credit added)
        ("task_key", pa.string()),
        ("kind", pa.string()),
        ("difficulty", pa.float64()),
        ("prompt", pa.string()),  # JSON: [{"role", "content"}]
        ("answer", pa.string()),
        ("index", pa.int32()),
        ("player", pa.string()),
        ("stop", pa.string()),
        ("policy_version", pa.int64()),
        ("correct", pa.bool_()),  # null where the episode failed
        ("reward", pa.float64()),  # null where the reward stage never ran
        ("scores", pa.string()),  # JSON: name -> number
        ("verdicts", pa.string()),  # JSON: [{"reward", "correct", "feedback"}]
        ("failure", pa.string()),  # JSON: {"where", "error", "traceback"}, or null
        ("spans", pa.list_(SPAN)),
        ("tokens", pa.list_(pa.int32())),
        ("pieces", pa.list_(pa.string())),  # the text of each token
        ("sampled", pa.list_(pa.bool_())),
        ("logp", pa.list_(pa.float32())),  # 0 where nothing was sampled
        ("advantage", pa.list_(pa.float32())),  # credit per token; null without a signal
        ("after", pa.list_(pa.float32())),  # log-probability after the update; null where not scored again
        ("weights", pa.string()),  # JSON: loss term -> list, where it is not the default mask
        ("notes", pa.string()),  # JSON: small facts of the rollout
    ]
)


def table(
    step: int, signals: Sequence[Signal], groups: Sequence[Group], decode: Decode, cache: dict[int, str]
) -> pa.Table:
    """One row per episode of `groups`, failed ones included, then one per signal that stands for none of
    them (a demonstration, a second sequence of an episode). `cache` remembers the text of single tokens.
    """
    waiting = _by_owner(signals, groups)
    rows: list[dict[str, Any]] = []
    late: list[tuple[int, Signal]] = []
    for number, group in enumerate(groups):
        for episode in group.episodes:
            mine = waiting.pop(id(episode), [])
            rows.append(_row(episode, mine[0] if mine else None, number, "group"))
            late += [(number, signal) for signal in mine[1:]]
        for episode in group.failed:
            mine = waiting.pop(id(episode), [])
            rows.append(_row(episode, mine[0] if mine else None, number, "failed"))
    late += [(-1, signal) for left in waiting.values() for signal in left]
    rows += [_row(signal.episode, signal, number, "signal") for number, signal in late]
    for index, row in enumerate(rows):
        row |= {"id": f"{step}-{index}", "step": step} | _texts(row.pop("_episode"), decode, cache)
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def _by_owner(signals: Sequence[Signal], groups: Sequence[Group]) -> dict[int, list[Signal]]:
    """The signals under the identity of the episode each stands for: the very object, or the one that it
    was copied from by `dataclasses.replace` (same task, sample number, player and tokens)."""
    everyone = [e for g in groups for e in (*g.episodes, *g.failed)]
    known = {id(e) for e in everyone}
    twins = {(id(e.task), e.index, e.player): e for e in everyone}
    owned: dict[int, list[Signal]] = {}
    for signal in signals:
        mine = signal.episode
        twin = twins.get((id(mine.task), mine.index, mine.player))
        same = id(mine) not in known and twin is not None and np.array_equal(twin.tokens, mine.tokens)
        owned.setdefault(id(twin if same else mine), []).append(signal)
    return owned


def _row(episode: Episode, signal: Signal | None, group: int, origin: str) -> dict[str, Any]:
    task, failed = episode.task, episode.failure is not None
    sampled = episode.sampled
    failure = episode.failure
    return {
        "_episode": episode,
        "group": group,
        "origin": origin,
        "task_key": task.key,
        "kind": task.kind,
        "difficulty": float(task.difficulty),
        "prompt": to_json([{"role": m.role, "content": m.content} for m in task.prompt]),
        "answer": None if task.answer is None else to_text(task.answer),
        "index": episode.index,
        "player": episode.player,
        "stop": episode.stop,
        "policy_version": episode.policy_version,
        "correct": None if failed else episode.correct,
        "reward": None if failed else episode.scores.get("reward"),
        "scores": to_json(dict(episode.scores)),
        "verdicts": to_json([vars(verdict) for verdict in episode.verdicts]),
        "failure": None if failure is None else to_json(vars(failure)),
        "tokens": episode.tokens,
        "sampled": sampled,
        "logp": episode.logp,
        "advantage": None if signal is None else np.asarray(signal.advantage, np.float32),
        "after": None if signal is None else signal.extras.get("after"),
        "weights": None if signal is None else _weights(signal, sampled),
        "notes": _notes(episode.notes),
    }


def _weights(signal: Signal, sampled: Array) -> str | None:
    names = list(signal.weights)
    if names == ["policy"] and np.array_equal(signal.weights["policy"], sampled.astype(np.float32)):
        return None
    return to_json({name: np.asarray(row, np.float32) for name, row in signal.weights.items()})


def _notes(notes: Mapping[str, Any]) -> str | None:
    """The notes that are small enough to keep, as JSON; large ones are named, not stored."""
    kept: dict[str, Any] = {}
    room = NOTES_LIMIT
    for name, value in notes.items():
        text = to_json(value)
        if name == SEARCH and len(text) <= TREE_LIMIT:
            kept[name] = value
            continue
        kept[name] = value if len(text) <= room else f"({len(text)} characters left out)"
        room -= min(len(text), room)
    return to_json(kept) if kept else None


def _texts(episode: Episode, decode: Decode, cache: dict[int, str]) -> dict[str, Any]:
    spans: list[dict[str, Any]] = []
    pieces: list[str] = []
    start = 0
    for span in episode.spans:
        mine = pieces_of(span.tokens, decode, cache)
        pieces += mine
        spans.append(
            {
                "role": span.role,
                "tag": span.tag,
                "start": start,
                "end": start + len(span),
                "sampled": span.sampled,
                "hidden": span.hidden,
                "restart": span.restart,
                "text": "".join(mine),
            }
        )
        start += len(span)
    return {"spans": spans, "pieces": pieces}


def pieces_of(tokens: Array, decode: Decode, cache: dict[int, str]) -> list[str]:
    """The text of each token, such that the pieces joined read as the whole. A character that is cut into
    several tokens stands at the first of them; bytes that never become one show as U+FFFD."""
    ids = [int(token) for token in tokens]
    pieces = [_piece(token, decode, cache) for token in ids]
    at = 0
    while at < len(ids):
        if BROKEN in pieces[at]:
            for end in range(at + 2, min(at + LONGEST_CHARACTER, len(ids)) + 1):
                whole = to_text(decode(np.array(ids[at:end], np.int32)))
                if BROKEN not in whole:
                    pieces[at:end] = [whole] + [""] * (end - at - 1)
                    at = end - 1
                    break
        at += 1
    return pieces


def _piece(token: int, decode: Decode, cache: dict[int, str]) -> str:
    """The text that a token adds after another. Decoders that drop a leading space show it only there."""
    if token not in cache:
        once = to_text(decode(np.array([token], np.int32)))
        twice = to_text(decode(np.array([token, token], np.int32)))
        cache[token] = twice[len(once) :] if twice.startswith(once) and len(twice) > len(once) else once
    return cache[token]


def to_text(value: Any) -> str:
    """`value` as text that UTF-8 can hold: lone surrogates become question marks."""
    return str(value).encode("utf-8", "replace").decode()
