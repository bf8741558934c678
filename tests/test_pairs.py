"""Answers of which one is preferred: what files of other tools say, and what becomes of them in a run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import worlds_of_letters as letters
from etude import tasks
from etude.credit.compared import compared
from etude.credit.pairs import preference_pairs, sampled_pairs
from etude.errors import UserError
from etude.fixtures.compared import example_pair
from etude.fixtures.examples import example_group
from etude.fixtures.given import GivenContext
from etude.objective.compared import seen_by
from etude.rollout.pairs import given
from etude.tasks.spec import as_pairs
from etude.train.loop import train
from etude.train.setup import start

USER = {"role": "user", "content": "Q"}
SIDES = {"chosen": "good", "rejected": "bad"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


FORMS = {
    "TRL, explicit prompt": {"prompt": "Q", **SIDES},
    "TRL, conversations": {"prompt": [USER], "chosen": [said("good")], "rejected": [said("bad")]},
    "TRL, implicit prompt": {"chosen": [USER, said("good")], "rejected": [USER, said("bad")]},
    "TRL, implicit prompt as text": {"chosen": "Q good", "rejected": "Q bad"},
    "UltraFeedback, binarised": {
        "prompt": "Q",
        "chosen": [USER, said("good")],
        "rejected": [USER, said("bad")],
        "score_chosen": 8.5,
        "score_rejected": 6.0,
    },
    "UltraFeedback": {
        "instruction": "Q",
        "completions": [
            {"response": "fair", "overall_score": 6},
            {"response": "good", "overall_score": 9.5},
            {"response": "bad", "overall_score": 2},
        ],
    },
    "HelpSteer2": {"prompt": "Q", "response_1": "bad", "response_2": "good", "preference_strength": 2},
    "Anthropic": {
        "chosen": "\n\nHuman: Q\n\nAssistant: good",
        "rejected": "\n\nHuman: Q\n\nAssistant: bad",
    },
    "RewardBench 2": {"prompt": "Q", "chosen": ["good"], "rejected": ["bad", "worse"], "subset": "Focus"},
}


def read(place: Path, *rows: dict, spec: str = "") -> list:
    path = place / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source = tasks.load(f"{path}{spec}").sources[0]
    return source.tasks("train") + source.tasks("eval")


@pytest.mark.parametrize("form", list(FORMS))
def test_forms_of_other_tools_are_read_as_they_are(form: str, tmp_path: Path) -> None:
    found = read(tmp_path, FORMS[form])
    assert [m.content for m in found[0].prompt] == ["Q"]
    assert given(found[0]) == SIDES
    assert found[0].answer is None
    assert found[0].reference == "good"


def test_what_a_row_says_beside_its_pair_is_kept(tmp_path: Path) -> None:
    rated, strong = (read(tmp_path, FORMS[f])[0].meta for f in ("UltraFeedback", "HelpSteer2"))
    assert (rated["rating_chosen"], rated["rating_rejected"]) == (9.5, 2)
    assert strong["strength"] == 2
    several = read(tmp_path, FORMS["RewardBench 2"])
    assert sorted(t.meta["rejected"] for t in several) == ["bad", "worse"]
    assert {t.kind for t in several} == {"Focus"}
    assert len({t.meta["item"] for t in several}) == 1


def test_unpaired_labels_have_one_side(tmp_path: Path) -> None:
    rows = [{"prompt": "Q", "completion": c, "label": c == "good"} for c in ("good", "bad")]
    assert sorted(map(str, map(given, read(tmp_path, *rows)))) == [
        "{'chosen': 'good'}",
        "{'rejected': 'bad'}",
    ]


def test_equally_good_answers_are_no_pair(tmp_path: Path) -> None:
    same = {**FORMS["HelpSteer2"], "preference_strength": 0}
    assert len(read(tmp_path, same, FORMS["HelpSteer2"])) == 1
    with pytest.raises(UserError, match="no row prefers"):
        read(tmp_path, same)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": "Q", "chosen": "good", "rejected": "good"},
            "line 1: 'chosen' and 'rejected' are the same",
        ),
        ({"prompt": "Q", "chosen": "good", "rejected": [said("bad")]}, "must both be text"),
        ({"chosen": "good", "rejected": "bad"}, "do not begin alike"),
        ({"prompt": "Q", "chosen": "good", "rejected": " "}, "'rejected' must be text that is not empty"),
        ({"prompt": "Q", "chosen": [USER], "rejected": [said("bad")]}, "must have the role assistant"),
        ({"prompt": "Q", "answer": "7"}, "line 1 holds no pair"),
    ],
)
def test_what_is_no_pair_is_refused_by_its_line(row: dict, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read(tmp_path, row, spec=":check=pairs")


def test_an_answer_that_can_be_checked_may_stand_beside_a_pair(tmp_path: Path) -> None:
    (task,) = read(tmp_path, {"prompt": "1+1", "answer": "2", "chosen": "It is 2.", "rejected": "It is 3."})
    assert task.check("2").correct
    assert given(task) == {"chosen": "It is 2.", "rejected": "It is 3."}


def test_a_run_learns_to_prefer_what_the_file_prefers(tmp_path: Path) -> None:
    rows = [{"prompt": f"{a}{b}", "chosen": a, "rejected": b} for a in "abc" for b in "xyz"]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    plan = letters.plan(tmp_path, "dpo", 6, update__lr=3e-3, run__tasks_per_step=6, objective__dpo_beta=1.0)
    run = start(plan.but(tasks=as_pairs(str(path))), tmp_path / "run")
    train(run)
    metrics = run.directory.metrics()
    row = run.directory.episodes(columns=["origin", "advantage", "sampled", "reward"]).to_pylist()[0]
    run.close()
    assert metrics[0]["demonstrated"] == 1
    assert metrics[0]["tokens/generated"] == 0
    assert metrics[-1]["loss/preference"] < 0.6 < metrics[0]["loss/preference"]
    assert metrics[-1]["preferred"] == 1
    assert row["origin"] == "signal"
    assert not any(row["sampled"])
    assert any(row["advantage"])


def test_pairs_of_different_tasks_are_never_mixed_up(tmp_path: Path) -> None:
    found = read(tmp_path, *({"prompt": p, **SIDES} for p in ("Q", "R")))
    assert len({t.key for t in found}) == 2
    assert not preference_pairs()([], SimpleNamespace())


def test_an_attempt_is_in_one_pair_at_most() -> None:
    assert len(sampled_pairs(example_group([0.5, 0.5, 0.5]), GivenContext(), pairs=3, margin=0.0)) == 2


def test_the_rating_of_an_answer_of_one_token_is_its_own() -> None:
    pair = example_pair(rating_chosen=4.0, rating_rejected=1.0)
    assert [s.extras["rating"].max() for s in compared(pair, GivenContext(), 1, 1e-6)] == [4.0, 1.0]


def test_members_of_an_ensemble_see_the_pairs_of_their_bits() -> None:
    seen = seen_by(torch.tensor([1.0, 2.0, 3.0, 0.0]), 2)
    assert seen.tolist() == [[1, 0], [0, 1], [1, 1], [1, 1]]
    assert seen_by(torch.tensor([2.0]), 1).tolist() == [[1]]
