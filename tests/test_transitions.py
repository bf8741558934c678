"""What second attempts change, as `etude eval --again` and `etude show` tell it."""

import json

import pytest

import toys
import worlds_of_letters as letters
from etude.assembly import build
from etude.errors import UserError
from etude.evaluate.transitions import decomposed, second_attempt, transitions
from etude.methods import find
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import GroupRollout
from etude.types import Request, SamplingParams
from second_attempts import play


def test_the_four_ways() -> None:
    replies = ["7", "7", "7", "2", "1", "7", "1", "3", "1", "17"]  # first and second, episode by episode
    found = transitions([play("score", replies, samples=5)[0]])
    assert found == {
        "again": 1.0,
        "first": 0.4,
        "second": 0.6,
        "right_right": 0.2,
        "right_wrong": 0.2,
        "wrong_right": 0.4,
        "wrong_wrong": 0.2,
    }
    # 1 of 2 stay right, 2 of 3 are mended: 0.6 = 0.4 / 2 + 0.6 x 2/3; (0.6 - 0.16) / 0.48
    parts = decomposed(found)
    assert parts == pytest.approx({"confidence": 1 / 2, "critique": 2 / 3, "relative": 0.44 / 0.48})
    assert 0.4 * parts["confidence"] + 0.6 * parts["critique"] == pytest.approx(found["second"])
    assert decomposed({"first": 1.0, "second": 1.0, "right_right": 1.0, "wrong_right": 0.0}) == {
        "confidence": 1.0
    }
    assert transitions([play("grpo", ["7", "1"], samples=2)[0]]) == {}
    with pytest.raises(UserError, match="did you mean 'reconsider'"):
        second_attempt("reconsidr")


@pytest.mark.parametrize("way", ["feedback", "reconsider", "reflect"])
def test_eval_measures_second_attempts(way: str, tmp_path) -> None:
    from etude.evaluate.result import EvalResult
    from etude.report.terminal import eval_screen
    from etude.train.measure import Exam, evaluate_model

    held = letters.words().holdout(6, 0)
    exam = Exam("words", held, 2, 0, changes={"precision": "fp32", "max_tokens": "2"}, again=way)
    result = evaluate_model(letters.model(tmp_path), exam)
    facts = result.to_dict()
    assert facts["attempts"]["second"] == pytest.approx(facts["mean"])
    assert EvalResult.from_dict(json.loads(json.dumps(facts))).attempts == facts["attempts"]
    assert "wrong -> right" in eval_screen(facts)
    assert facts["correction"] == decomposed(facts["attempts"])
    if {"confidence", "critique"} <= set(facts["correction"]):
        assert "right again if right" in eval_screen(facts)
        assert " x " in eval_screen(facts)
    single = evaluate_model(letters.model(tmp_path), Exam("words", held, 2, 0, changes=exam.changes))
    assert "attempts" not in single.to_dict()


def test_generators_reach_conversations() -> None:
    generator = Generator(None, None, SamplingParams())
    stages = build(find("grpo"))[1]
    rollouts = GroupRollout(
        toys.task(),
        Request(),
        1,
        generator,
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        1,
        generators={"x": generator},
    )
    assert rollouts.conversation(0).generators == {"x": generator}


def test_show_marks_what_is_trained(tmp_path) -> None:
    from etude.cli import run as etude
    from etude.report.turns import chosen, screen, turns
    from etude.train.loop import train
    from etude.train.setup import start

    more = {"run__tasks_per_step": 4, "run__group_size": 4, "run__eval_problems": 0}
    run = start(letters.plan(tmp_path, "erl", 1, **more), tmp_path / "run", letters.words())
    train(run)
    run.close()
    one, kept = chosen(tmp_path / "run", "")
    assert [t["tag"] for t in turns(one) if t["trained"]] == ["attempt 1", "reflection", "attempt 2"]
    assert [t["restart"] for t in turns(one)] == [False, False, True, False, True, False]
    assert [list(t["trained"]) for t in turns(kept)] == [[], ["distilled"]]
    said = screen([one, kept])
    assert said.count("verdict: ") == 2
    assert "made of it by credit, 1 of 1" in said
    assert chosen(tmp_path / "run", one["id"]) == [one, kept]
    alone = chosen(tmp_path / "run", kept["id"])
    assert alone == [kept], "what credit made is not made of itself"
    assert screen(alone).count("verdict: ") == 1
    assert "verdict: right" in screen(alone), "its first attempt is the second"
    assert etude(["show", str(tmp_path / "run"), "--json"]) == 0
    assert etude(["show", str(tmp_path / "run"), "7-0"]) == 2
