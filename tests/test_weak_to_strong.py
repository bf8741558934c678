"""Labels of a weak supervisor, debates before it, and the study's material."""

from __future__ import annotations

import json
import string
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from etude.data.filters import Sieve
from etude.data.items import Item
from etude.data.recipes import weak_to_strong as recipes
from etude.data.recipes.weak_to_strong import ASKED, debate, weak_labels
from etude.data.session import Order, choose
from etude.data.workshop import Workshop
from etude.errors import UserError
from etude.lab.tasks import lab_task
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.studies.weak_to_strong import RECOVERED, labelled, pair, recovers, shallow, told_apart

PAIR = {"prompt": "2+2?", "chosen": "4", "rejected": "5"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "tiny"
    return tiny_directory(place, string.printable, layers=2, width=32, heads=2, kv_heads=1, seed=3)


def order(name: str, out: Path, wanted: int, **changes: str) -> Order:
    return Order(
        name, out, wanted, changes={f"{name}.{k}": v for k, v in changes.items()}, say=lambda text: None
    )


def test_both_sides_are_argued_for_in_turn(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def said(self: Workshop, prompts: Any, why: str, who: str = "policy", **params: Any) -> list[str]:
        asked.append([p[-1].content for p in prompts])
        return ["" if why == "speech 3" and i == 0 else f"{why} of {i}" for i in range(len(prompts))]

    monkeypatch.setattr(Workshop, "said", said)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps({**PAIR, "prompt": f"{i}+2?"}) + "\n" for i in range(3)))
    facts = choose(order("debate", tmp_path / "out", 2, speeches="2", transcripts="4"), str(file), str(tiny))
    rows = [json.loads(line) for line in (tmp_path / "out" / "data.jsonl").read_text().splitlines()]
    assert len(asked) == 4
    assert len(rows) == 7  # two of three pairs, four debates each, of which one fell silent
    assert all(r["chosen"] == "4" and r["rejected"] == "5" and r[ASKED] in ("0+2?", "1+2?") for r in rows)
    first = {("4" if "Answer A:\n4" in r["prompt"] else "5") for r in rows}
    assert first == {"4", "5"}  # either answer is A now and then
    assert "A: speech 0 of 1\n\nB: speech 1 of 1\n\nA: speech 2 of 1\n\nB: speech 3 of 1" in rows[0]["prompt"]
    assert "answer A is the better one" in asked[0][0]
    assert "answer B is the better one" in asked[1][0]
    assert "A: speech 0 of 0" in asked[1][0]
    assert any("nobody was silent" in f["kept"] for f in facts["filters"])


class Fixed:
    """A reward model of two members with these margins, by what stands in the prompt."""

    def __init__(self, name: str) -> None:
        self.name = name

    def members(self, asked: Any) -> tuple[Any, Any]:
        margins = {"x": (2.0, 0.0), "y": (-3.0, -3.0), "z": (4.0, 4.0)}
        values = [
            margins[p[-1].content[-1]] if text == "4" else (0.0, 0.0)
            for p, text in ((list(p), text) for p, text in asked)
        ]
        return np.array(values), np.zeros((len(values), 2))


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def test_probabilities_are_averaged_over_members_and_transcripts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "RewardModel", Fixed)
    items = [Item({**PAIR, "prompt": end, ASKED: "2+2?"}) for end in ("x", "z")]
    items.append(Item({**PAIR, "prompt": "3+1? y"}))
    shop: Any = SimpleNamespace(wanted=3, sieve=Sieve([]))
    one, two = weak_labels(("a", "b"))(shop, items)
    p = (sigmoid(2) / 2 + 0.5 / 2 + sigmoid(4)) / 2
    assert one.row == {
        "prompt": "2+2?",
        "chosen": "4",
        "rejected": "5",
        "strength": pytest.approx(np.log(p / (1 - p))),
    }
    assert one.came["judgements"] == 4
    assert two.row == {
        "prompt": "3+1? y",
        "chosen": "5",
        "rejected": "4",
        "strength": pytest.approx(3.0),
    }


def test_what_cannot_be_labelled_is_refused(tmp_path: Path, tiny: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps(PAIR) + "\n")
    with pytest.raises(UserError, match="needs a reward model"):
        choose(order("weak_labels", tmp_path / "out", 1), str(file), str(tiny))
    shop: Any = SimpleNamespace(wanted=1, random=lambda name: np.random.default_rng(0))
    with pytest.raises(UserError, match="holds no pair"):
        debate()(shop, [Item({"prompt": "2+2?", "answer": "4"})])


def test_a_supervisor_is_the_first_layers_of_a_model(tmp_path: Path, tiny: Path) -> None:
    whole, half = (
        Policy.load(str(tiny), "fp32"),
        shallow(Policy.load(str(tiny), "fp32"), 1, tmp_path / "half"),
    )
    loaded = Policy.load(str(half), "fp32")
    assert loaded.config["num_hidden_layers"] == 1
    mine, theirs = (dict(p.backbone.weights.state_dict()) for p in (loaded, whole))
    assert 0 < len(mine) < len(theirs)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_pairs_of_the_study_are_true_and_its_labels_are_the_supervisors() -> None:
    task = lab_task("sum", 1, 3, "full")
    made = pair(task)
    assert task.check(made["chosen"]).correct
    assert not task.check(made["rejected"]).correct
    kept, turned = labelled([made, made], [0.5, -2.0])
    assert kept == {**made, "strength": 0.5}
    assert (turned["chosen"], turned["rejected"], turned["strength"]) == (
        made["rejected"],
        made["chosen"],
        2.0,
    )


def test_the_gap_recovered_is_a_contrast() -> None:
    """0.6 of the distance from 60 to 85 is above a fifth of it; a tenth is not."""
    measured = {("ceiling", "accuracy"): 0.85, ("naive", "weak"): 0.6}
    for gained, above in ((0.15, True), (0.025, False)):
        values = {**measured, ("naive", "accuracy"): 0.6 + gained}
        total = sum(weight * values[arm, name] for weight, arm, name in recovers("naive", RECOVERED))
        assert total == pytest.approx(gained - RECOVERED * 0.25)
        assert (total > 0) == above
    assert told_apart(np.array([0.1, 0.0, -3.0])).tolist() == [1.0, 0.5, 0.0]
