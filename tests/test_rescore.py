"""What an update did to one group: seen after some steps, trained on never, paid for by no budget."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import worlds_of_letters as letters
from etude.errors import UserError
from etude.report import rows
from etude.report.run import RunDirectory
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Episode, Message, Signal, Span, Task
from test_resume import differences

TASK = Task((Message("user", "any"),), letters.First("a"))


def trained(place: Path, name: str, recipe: str = "grpo", steps: int = 4, **more: object) -> RunDirectory:
    settings = {"run__tasks_per_step": 4, "run__group_size": 4, "run__eval_problems": 0, **more}
    run = start(letters.plan(place, recipe, steps, **settings), place / name, letters.words())
    train(run)
    run.close()
    return RunDirectory.open(place / name)


def seen(run: RunDirectory) -> dict[int, list[dict]]:
    """The rows that were scored again, by step."""
    found: dict[int, list[dict]] = {}
    for row in run.episodes().to_pylist():
        if row["after"] is not None:
            found.setdefault(row["step"], []).append(row)
    return found


def test_one_group_every_so_many_steps(tmp_path: Path) -> None:
    """One pass over one group's data with a plain gradient makes what was praised likelier and what was blamed less."""
    run = trained(tmp_path, "run", run__rescore_every=2, update__lr=1e-3)
    found = seen(run)
    assert sorted(found) == [1, 3]
    for mine in found.values():
        assert len({row["group"] for row in mine}) == 1
        assert len(mine) == 4
        for row in mine:
            after, sampled = np.array(row["after"]), np.array(row["sampled"])
            assert not after[~sampled].any()
            assert (after[sampled] < 0).all()
    moved = [
        np.sum(np.array(r["advantage"]) * (np.array(r["after"]) - np.array(r["logp"]))) for r in found[1]
    ]
    assert sum(moved) > 0, "along the advantage, to first order"


def test_it_is_the_log_probability_of_the_next_policy(tmp_path: Path) -> None:
    """The score after step 1 is what the weights of the checkpoint after step 1 give."""
    run = trained(tmp_path, "run", steps=1, run__rescore_every=1, update__lr=1e-3)
    again, _ = resume(run.path, letters.words())
    (mine,) = seen(run).values()
    for row in mine:
        tokens = np.array(row["tokens"])
        spans = tuple(Span(s["role"], tokens[s["start"] : s["end"]], s["sampled"]) for s in row["spans"])
        signal = Signal(Episode(TASK, spans), np.zeros(len(tokens)))
        (expected,) = again.context.rows([signal], lambda out: out.logp)
        assert row["after"] == pytest.approx(list(expected), abs=1e-5)
        assert row["after"] != pytest.approx(row["logp"], abs=1e-5)
    again.close()


def test_nothing_else_changes(tmp_path: Path) -> None:
    """Scoring again or not: the same weights, the same bill, the same metrics but for those of its own."""
    on = trained(tmp_path, "on", run__rescore_every=1)
    off = trained(tmp_path, "off", run__rescore_every=0)
    assert not seen(off)
    assert len(seen(on)) == 4
    clocks = ("time/", "seconds", "rss_mb", "tokens_per_second", "rescored", "kl_update")
    plain = [
        [{k: v for k, v in m.items() if not k.startswith(clocks)} for m in r.metrics()] for r in (on, off)
    ]
    assert plain[0] == plain[1]
    assert all(m["rescored"] > 0 for m in on.metrics())
    assert differences(on.path, off.path) == []


def test_a_resumed_run_shows_the_same(tmp_path: Path) -> None:
    whole = trained(tmp_path, "whole", run__rescore_every=1)
    trained(tmp_path, "half", run__rescore_every=1, run__checkpoint_every=2)
    path = tmp_path / "half"
    (newest,) = [p for p in (path / "checkpoints").glob("step-*") if p.name.endswith("4")]
    newest.rename(tmp_path / "away")
    again, _ = resume(path, letters.words())
    assert again.context.step == 2
    train(again)
    again.close()
    columns = ["id", "after"]
    assert RunDirectory.open(path).episodes(columns=columns) == whole.episodes(columns=columns)


def test_runs_of_before_can_be_read(tmp_path: Path) -> None:
    """A step's file without the column reads as not scored; another missing column is damage."""
    run = trained(tmp_path, "run", steps=1)
    file = run.episode_file(1)
    table = pq.read_table(file)
    pq.write_table(table.drop_columns(["after"]), file)
    assert run.episodes().schema == rows.SCHEMA
    assert run.episodes(columns=["after"])["after"].null_count == len(table)
    pq.write_table(table.drop_columns(["logp"]), file)
    with pytest.raises(UserError, match="cannot be read"):
        run.episodes()
