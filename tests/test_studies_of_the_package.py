"""The studies of the package: they can be built, and what they measure, worked by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from etude.docs.studies import outcome, read, studies_page
from etude.studies import catalogue, find
from etude.studies.four_habits import habits, wrong_result
from etude.studies.inference_scaling import picked_error
from etude.studies.random_rewards import coin
from etude.studies.reason_if import obeys, split
from etude.studies.regret_loss import alternating, leader, regret, regret_loss
from etude.studies.self_check import called_right, scored
from etude.study.session import asked_of, check


@pytest.mark.parametrize("name", catalogue())
def test_every_arm_of_every_study_can_be_built(name: str, tmp_path: Path) -> None:
    study = find(name)
    check(study, asked_of(study, name), tmp_path)
    assert study.paper.arxiv
    assert study.hypotheses


def test_the_page_tells_every_study_and_every_outcome() -> None:
    page = (Path(__file__).parent.parent / "docs" / "studies.md").read_text()
    assert page == studies_page()
    for name, study in catalogue().items():
        assert f"## {name}" in page
        assert all(h.says in page for h in study.hypotheses)
    for name, found in read().items():
        assert outcome(find(name), read()).count(":") >= len(found["hypotheses"]), name


def test_a_judge_that_is_right_picks_the_nearest_draw() -> None:
    """k draws, T -> 0, the judge knows the target: E min (y - t)^2 over k standard normals around it."""
    rng = np.random.default_rng(0)
    n = 40_000
    zero, one = np.zeros(n), np.ones(n)
    error = picked_error(zero, one, zero, zero, 4, 1e-9, rng).mean()
    draws = np.random.default_rng(1).standard_normal((n, 4))
    assert error == pytest.approx((draws**2).min(1).mean(), rel=0.05)
    blind = picked_error(zero, one, zero, zero, 4, 1e9, rng).mean()
    assert blind == pytest.approx(1.0, rel=0.05)  # as one draw: the variance


def test_regret_and_its_loss() -> None:
    losses = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]])
    even = torch.full_like(losses, 0.5)
    # Paid 1/2 a round; the better action in hindsight has lost 0, 1, 1.
    assert regret(losses, even).tolist() == [[0.5, 0.0, 0.5]]
    # R = (1, 2): sum h f / sum f with h = x^2, f = x^2: (1 + 16) / (1 + 4); one sequence alone: h.
    assert float(regret_loss(torch.tensor([[1.0, 2.0]]))) == pytest.approx(17 / 5)
    assert float(regret_loss(torch.tensor([[3.0]]))) == pytest.approx(9.0)
    assert float(regret_loss(torch.tensor([[-3.0]]))) == 0.0
    # exp(-eta L / sqrt(T)), the first round without any loss.
    play = leader(losses, 1.0)
    assert play[0, 0].tolist() == [0.5, 0.5]
    # Who follows the leader loses 1 in every round but the first, where either action loses half of the rounds.
    worst = alternating(np.random.default_rng(0), 8)
    assert regret(worst, leader(worst, 1e6))[:, -1].min() > 11
    assert float(play[0, 1, 1] / play[0, 1, 0]) == pytest.approx(np.exp(1 / 25**0.5))


def test_what_samples_and_critiques_of_one_problem_give() -> None:
    found = scored(["7", "7", "8", None], [True, True, False, False], [False, True, True, False])
    assert found["single"] == 0.5
    assert found["vote"] == 1.0  # 7 leads
    assert found["self-check"] == 0.5  # 7 and 8 are left, one vote each
    assert found["oracle"] == 1.0
    assert found["critique"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert "critique, sure" in found  # half of the samples agree
    all_wrong = scored(["7", "8"], [True, False], [False, False])
    assert all_wrong["self-check"] == all_wrong["vote"] == 0.5  # nothing is left: the vote over all
    assert called_right("Line 1 is right. It is right.")
    assert not called_right("Line 1 is right. Line 2 is wrong.")
    assert not called_right("That is not right.")


def test_rules_of_reasoning() -> None:
    assert split("<think>A b.</think> 7") == ("A b.", "7")
    assert split("A b.</think>7") == ("A b.", "7")
    assert split("7") == ("", "7")
    assert split("<think>cut off") == ("cut off", "")
    for rule, good, bad in (
        ("short", "two words", "word " * 40),
        ("capitals", "ALL OF IT", "not All"),
        ("phrase", "So. That is all I have to say.", "That is all."),
        ("json", '```json\n{"a": 1}\n```', "a: 1"),
        ("commas", "none at all", "one, at least"),
        ("letter", "OK then", "then OK"),
    ):
        assert obeys(rule, good), rule
        assert not obeys(rule, bad), rule
        assert not obeys(rule, "  "), rule


def test_traces_of_habits_end_as_they_should() -> None:
    from etude.lab.tasks import CHECK, WAIT, lab_task, written_steps

    task = lab_task("sum", 1, 3, "full")
    rng = np.random.default_rng(0)
    lines = habits(task, rng)
    assert WAIT in lines
    assert CHECK in lines
    assert written_steps("\n".join(lines)) == task.meta["steps"]  # what is taken back does not count
    wrong = wrong_result(task, rng)
    assert wrong != task.answer
    assert len(wrong) == len(task.answer or "")
    assert not task.check(f"<answer>{wrong}</answer>").correct


def test_a_coin_is_fair_and_knows_its_answer() -> None:
    from etude.fixtures.examples import example_episode

    flip = coin()
    flips = [flip(example_episode(0.0, (i, i + 1)))["reward"] for i in range(5, 405)]
    assert 0.4 < np.mean(flips) < 0.6
    assert flips == [flip(example_episode(1.0, (i, i + 1)))["reward"] for i in range(5, 405)]
