"""What the speed benches compute themselves: useful work, slopes, medians and the README's table."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from etude.models.config import ModelConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
import growth
import table
from contestants import middle
from picture import Axis
from work import blocks, forward_flops, training_flops

SMALL = ModelConfig.from_transformers(
    {
        "model_type": "llama",
        "vocab_size": 10,
        "hidden_size": 4,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "intermediate_size": 5,
    }
)


def test_useful_work_by_hand():
    # queries, keys and values (4 + 2 + 2) x 4, output 4 x 4, gate and up 10 x 4, down 4 x 5: 32 + 16 + 40 + 20
    assert blocks(SMALL) == 3 * 108
    # 7 prompt and 6 completion tokens of 2 samples: 11 rows through the blocks, 6 through the head of 10 x 4
    assert forward_flops(SMALL, 7, 6, 2) == 2 * (324 * 11 + 40 * 6)
    assert training_flops(SMALL, 7, 6, 2) == 6 * (324 * 11 + 40 * 6)
    assert training_flops(SMALL, 7, 6, 2, replayed=1.0) == 4 * 324 * 11 + 6 * 40 * 6


def test_a_turn_that_is_three_times_as_long_does_not_move_the_median():
    turns = [{"seconds": s, "tokens": 12.0, "peak_mb": s} for s in (2.0, 6.0, 2.0)]
    found = middle(turns)
    assert (found["seconds"], found["tokens_per_second"], found["peak_mb"]) == (2.0, 6.0, 6.0)


def test_slopes_of_shared_and_separate_prompts():
    points = {}
    for axis, cost in (("samples", 0.5), ("samples apart", 3.0)):
        for n in (8, 2, 4):
            facts = {"axis": axis, "value": n, "seconds": 1 + cost * n, "rollout_seconds": 1.0}
            points[f"{axis} = {n}"] = {**facts, "parameters": 1.0}
    assert growth.curve(points, "samples") == ([2.0, 4.0, 8.0], [2.0, 3.0, 5.0])
    assert growth._result(points)["samples_slope"]["ratio"] == pytest.approx(6.0)


def test_logarithmic_axis():
    axis = Axis([1.0, 100.0], 0.0, 10.0)
    assert axis(10.0) == pytest.approx(5.0)
    assert axis(1.0) < axis(2.0) < axis(100.0)
    assert axis.ticks() == [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0][::2]


def test_table_says_at_least_where_the_peer_never_arrived(tmp_path, monkeypatch):
    result = {
        "target": 0.4,
        "etude": {"seconds": 150.0, "reached": True},
        "peer": {"seconds": 1200.0, "reached": False},
        "ratio": 8.0,
        "bound": True,
        "card": {"machine": {"processor": "A", "cores": 2}},
    }
    (row,) = table.rows({"to_target": result})
    assert (row.times, row.peer, row.etude) == ("**at least 8.0x**", "TRL not in 20.0 min", "2.5 min")
    elsewhere = {**result, "card": {"machine": {"processor": "B", "cores": 2}}}
    with pytest.raises(SystemExit, match="several machines"):
        table.markdown([row], {"to_target": result, "startup": elsewhere})


def test_table_is_written_between_the_markers_only(tmp_path, monkeypatch):
    (tmp_path / "results").mkdir()
    (tmp_path / "docs").mkdir()
    facts = {"etude": {"seconds": 7.1}, "card": {"machine": {"processor": "A", "cores": 2}}}
    (tmp_path / "results" / "startup.json").write_text(json.dumps(facts))
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")
    monkeypatch.setattr(table, "HERE", tmp_path)
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py"])
    table.main()
    text = readme.read_text()
    assert text.startswith(f"before\n{table.BEGIN}\n|")
    assert text.endswith(f"{table.END}\nafter\n")
    assert "7.10 s" in text
    assert "old" not in text


def test_what_benches_and_examples_import_is_there():
    """They are not all run by tests; a name that moved must not be found out a year later."""
    root = Path(__file__).parents[1]
    for path in [*root.glob("bench/*.py"), *root.glob("examples/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "etude":
                module = importlib.import_module(node.module)
                for name in (alias.name for alias in node.names):
                    submodule = f"{node.module}.{name}"
                    assert hasattr(module, name) or importlib.util.find_spec(submodule), (
                        f"{path.name}: {submodule}"
                    )
