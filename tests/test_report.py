"""The run directory: what is written comes back, whole or not at all, and nothing survives that should not."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browser.synthetic import MALICIOUS, Words, extra_metrics, make_eval, make_run, make_step
from etude.errors import UserError
from etude.report import json_files, rows, terminal
from etude.report.run import RunDirectory
from etude.types import Episode, Group, Message, Signal, Span, Task, Verdict
from recompute import recompute


def new(path: Path) -> RunDirectory:
    return RunDirectory.create(path, {"recipe": "grpo", "rate": np.float32(0.5)}, {"torch": "2.13.0"})


def by_hand() -> tuple[list[Group], list[Signal], Words]:
    """One group of two; the second attempt has a hidden hint and a weight of its own."""
    words = Words()
    task = Task(
        (Message("user", "2+2="),), lambda a: Verdict(1, True), kind="sum", difficulty=2.0, answer="4"
    )
    ask = Span("user", words.encode("2+2="))
    four = Span("assistant", words.encode("é4"), True, np.array([-0.5, -0.25, -1], np.float32), tag="attempt")
    hint = Span("user", words.encode("h"), hidden=True, restart=True)
    right = Episode(
        task, (ask, four), index=0, verdicts=(Verdict(1.0, True, "yes"),), scores={"reward": 1.0}, stop="end"
    )
    wrong = Episode(
        task,
        (ask, hint, four),
        index=1,
        verdicts=(Verdict(0.25, False),),
        scores={"reward": 0.25},
        stop="length",
    )
    signals = [
        Signal(right, np.array([0, 0, 0, 0, 1, 1, 1], np.float32)),
        Signal(wrong, np.full(8, -1, np.float32), {"imitation": np.arange(8, dtype=np.float32)}),
    ]
    return [Group(task, (right, wrong))], signals, words


def test_an_episode_comes_back_as_it_was(tmp_path: Path) -> None:
    groups, signals, words = by_hand()
    run = new(tmp_path / "run")
    run.write_step(
        3,
        {"reward": np.float64(0.625), "kl": float("nan"), "curriculum": {"a": 1}},
        signals,
        groups,
        words.decode,
    )
    run = RunDirectory.open(tmp_path / "run")
    assert run.config == {"recipe": "grpo", "rate": 0.5}
    assert run.metrics() == [{"reward": 0.625, "kl": None, "curriculum": {"a": 1}, "step": 3}]
    first, second = run.episodes([3]).to_pylist()
    assert (first["id"], first["task_key"], first["kind"], first["difficulty"]) == (
        "3-0",
        groups[0].task.key,
        "sum",
        2.0,
    )
    assert json.loads(first["prompt"]) == [{"role": "user", "content": "2+2="}]
    assert first["tokens"] == groups[0].episodes[0].tokens.tolist()
    assert first["sampled"] == [False] * 4 + [True] * 3
    assert first["logp"] == [0, 0, 0, 0, -0.5, -0.25, -1]
    assert first["advantage"] == [0, 0, 0, 0, 1, 1, 1]
    assert first["weights"] is None
    assert first["pieces"] == ["2", "+", "2", "=", "é", "", "4"]  # two bytes are one character
    assert json.loads(first["verdicts"]) == [{"reward": 1.0, "correct": True, "feedback": "yes"}]
    assert (first["answer"], first["reward"], first["correct"], first["stop"]) == ("4", 1.0, True, "end")
    assert json.loads(second["weights"]) == {"imitation": list(range(8))}
    spans = [
        (s["role"], s["tag"], s["start"], s["end"], s["sampled"], s["hidden"], s["restart"], s["text"])
        for s in second["spans"]
    ]
    assert spans == [
        ("user", "", 0, 4, False, False, False, "2+2="),
        ("user", "", 4, 5, False, True, True, "h"),
        ("assistant", "attempt", 5, 8, True, False, False, "é4"),
    ]


def test_failed_and_added_sequences_are_rows_too(tmp_path: Path) -> None:
    groups, signals, words = by_hand()
    right, wrong = groups[0].episodes
    groups = [Group(groups[0].task, (right,), failed=(wrong,))]
    copy = Episode(**{name: getattr(right, name) for name in right.__dataclass_fields__})
    extra = Episode(groups[0].task, right.spans, "demonstration")
    run = new(tmp_path / "run")
    given = [Signal(copy, signals[0].advantage), signals[0], Signal(extra, np.ones(7, np.float32))]
    run.write_step(1, {}, given, groups, words.decode)
    found = run.episodes(columns=["origin", "player", "group", "advantage"]).to_pylist()
    assert [(r["origin"], r["player"], r["group"]) for r in found] == [
        ("group", "policy", 0),
        ("failed", "policy", 0),
        ("signal", "policy", 0),  # a second sequence of the first episode
        ("signal", "demonstration", -1),
    ]
    assert found[1]["advantage"] is None


def test_every_logged_mean_follows_from_the_rows(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=12)
    failures = 0.0
    for logged in run.metrics():
        mine = recompute(run.episodes([logged["step"]]))
        assert {name: logged[name] for name in mine} == pytest.approx(mine, abs=1e-12)
        means = {n for n in logged if n.startswith(("kind/", "score/"))} | {
            "reward",
            "correct",
            "signal",
            "truncated",
        }
        assert means <= set(mine)
        failures += mine["errors"]
    assert failures > 0, "the synthetic run must hold failed episodes, or nothing was tested about them"


def test_truncate_forgets_exactly_what_came_later(tmp_path: Path) -> None:
    short, long = make_run(tmp_path / "short", steps=5), make_run(tmp_path / "long", steps=5)
    rng, words = np.random.default_rng(1), Words()
    for step in (6, 7):
        groups, signals = make_step(words, rng, 0.5)
        long.write_step(step, extra_metrics(step, 7, rng, False), signals, groups, words.decode)
        long.write_eval(make_eval(step, 0.5))
        long.write_finding({"step": step, "name": "kl", "message": "", "value": 1.0, "threshold": 0.5})
    (long.path / "episodes" / ".step-000008.parquet.tmp").write_bytes(b"half")
    (long.path / ".report.html.tmp").write_bytes(b"half")
    with (long.path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 5, "rew')
    long.truncate(5)

    def content(run: RunDirectory) -> dict[str, bytes]:
        return {
            p.relative_to(run.path).as_posix(): p.read_bytes() for p in run.path.rglob("*") if p.is_file()
        }

    assert content(long) == content(short)


def test_a_torn_last_line_is_ignored_and_then_removed(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    run.write_eval({"step": 1, "mean": 0.5})
    with (run.path / "evals.jsonl").open("ab") as file:
        file.write(b'{"step": 2}')  # valid JSON, but its newline never came
    assert [row["step"] for row in run.evals()] == [1]
    run.write_eval({"step": 3})
    assert [row["step"] for row in run.evals()] == [1, 3]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    (run.path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl' line 2 "):
        run.metrics()


def test_create_and_open_refuse_what_is_not_theirs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(UserError, match=r"not empty and not a run \(it holds 'cat\.jpg'\)"):
        new(tmp_path / "photos")
    with pytest.raises(UserError, match="is not a run"):
        RunDirectory.open(tmp_path / "photos")
    with pytest.raises(UserError, match="does not exist"):
        RunDirectory.open(tmp_path / "nowhere")
    run = new(tmp_path / "run")
    run.write_eval({"step": 1})
    (run.path / "mine.txt").write_text("a note")
    run.release()
    with pytest.raises(UserError, match="already holds a run"):
        new(tmp_path / "run")
    again = RunDirectory.create(tmp_path / "run", {"recipe": "rloo"}, {}, overwrite=True)
    assert (again.evals(), again.config) == ([], {"recipe": "rloo"})
    assert (again.path / "mine.txt").exists(), "only the run's own files are deleted"


def test_a_creation_or_an_overwriting_cut_short_can_be_repeated(tmp_path: Path) -> None:
    run = new(tmp_path / "run")
    (run.path / "config.json").unlink()
    run.release()
    with pytest.raises(UserError):
        RunDirectory.open(run.path)
    run = new(tmp_path / "run")
    run.write_eval({"step": 1})
    (run.path / "config.json").unlink()
    run.release()
    with pytest.raises(UserError, match=r"it holds 'evals\.jsonl'"):
        new(tmp_path / "run")
    assert RunDirectory.create(run.path, {}, {}, overwrite=True).evals() == []
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"")
    with pytest.raises(UserError, match="cat"):
        RunDirectory.create(tmp_path / "photos", {}, {}, overwrite=True)


class Disk:
    """A file whose disk fills up after `room` bytes."""

    def __init__(self, file: Any, room: int) -> None:
        self.file, self.room = file, room

    def write(self, data: bytes) -> int:
        if len(data) > self.room:
            self.file.write(data[: self.room])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return int(self.file.write(data))

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, *args: Any) -> None:
        self.file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "run", steps=2)
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    genuine = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: Disk(genuine(self, *a, **k), 40))
    groups, signals, words = by_hand()
    with pytest.raises(UserError, match="the disk is full") as error:
        run.write_step(3, {"reward": 1.0}, signals, groups, words.decode)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="the disk is full"):
        run.write_eval({"step": 3, "name": "a line that does not fit in forty bytes"})
    with pytest.raises(UserError, match="the disk is full"):
        json_files.write_json(
            run.path / "config.json", {"name": "a plan that does not fit in forty bytes either"}
        )
    monkeypatch.undo()
    assert {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()} == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small tmpfs needs root")
def test_a_really_full_disk(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)], capture_output=True
    ).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        run, words, rng = new(disk / "run"), Words(), np.random.default_rng(0)

        def fill() -> None:
            for step in range(1, 200):
                groups, signals = make_step(words, rng, 0.5, samples=16)
                run.write_step(step, {"reward": 0.5}, signals, groups, words.decode)

        with pytest.raises(UserError, match="the disk is full"):
            fill()
        whole = [row["step"] for row in run.metrics()]
        assert whole == list(range(1, len(whole) + 1))
        assert len(whole) >= 1
        assert run.episodes(whole).num_rows >= 64 * len(whole)
        assert not list(run.path.rglob("*.tmp"))
        run.release()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_pieces_join_to_the_text_whatever_the_tokens() -> None:
    words = Words()
    tokens = words.encode("naïve → 🙂 done")
    assert "".join(rows.pieces_of(tokens, words.decode, {})) == "naïve → 🙂 done"
    halves = np.array([0xF0, 0x9F, 0x99, 65, 0x80, 66], np.int32)  # a character that never ends
    pieces = rows.pieces_of(halves, words.decode, {})
    assert len(pieces) == 6
    assert (pieces[3], pieces[5]) == ("A", "B")

    def sentencepiece(tokens: Any) -> str:  # drops the space before the first word
        return "".join(["▁he", "llo", "▁you"][t] for t in tokens).replace("▁", " ").removeprefix(" ")

    assert rows.pieces_of(np.array([0, 1, 2]), sentencepiece, {}) == [" he", "llo", " you"]


def test_text_that_utf8_cannot_hold_is_kept_readable(tmp_path: Path) -> None:
    groups, signals, _ = by_hand()
    run = new(tmp_path / "run")
    run.write_step(1, {}, signals, groups, lambda tokens: "\ud800" + MALICIOUS)
    row = run.episodes([1]).to_pylist()[0]
    assert row["spans"][0]["text"].startswith("?</script>")


def test_a_finding_names_the_episodes_behind_it(tmp_path: Path) -> None:
    groups, signals, words = by_hand()
    run = new(tmp_path / "run")
    run.write_step(1, {}, signals, groups, words.decode)
    run.write_finding({"step": 1, "name": "truncation", "message": "", "value": 0.9, "threshold": 0.5})
    assert run.findings()[0]["episodes"] == ["1-1"]


def test_long_work_says_how_much_is_left() -> None:
    assert [
        terminal.left(s, f) for s, f in ((60, 0.25), (10, 0.5), (7200, 0.2), (0, 0.5), (9, 1.0), (None, 0.5))
    ] == [
        ", about 3 min left",
        ", about 10 s left",
        ", about 8 h left",
        "",
        "",
        "",
    ]
    assert "(25%, about 3 min left)" in terminal.line(5, {"seconds": 60.0}, 0.25)
    file = io.StringIO()
    count = terminal.Count("problems examined", every=0.0, file=file)
    count.begin -= 10
    for done in (1, 2, 3, 4):
        count(done, 4)
    said = file.getvalue().splitlines()
    assert [line.split(",")[0] for line in said] == [f"problems examined: {n} of 4" for n in (1, 2, 3)]
    assert said[0].endswith("about 30 s left")
    quiet = terminal.Count("problems examined", file=file)
    quiet(1, 4)
    assert file.getvalue().splitlines() == said, "short work says nothing"
