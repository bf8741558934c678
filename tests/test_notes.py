"""What is said before a run: settings that do nothing with its recipe, and methods for which a reward decides less."""

from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude.methods import catalogue, find
from etude.train.notes import idle, undecided
from etude.train.setup import resolve, start


def noted(place: Path, recipe: str, **changes: object) -> list[str]:
    plan = letters.plan(place, recipe, **changes)
    found, _, stages = resolve(plan)
    return idle(found, stages, plan.changes)


@pytest.mark.parametrize(
    ("recipe", "setting", "value", "does"),
    [
        ("grpo", "update__head_lr", 1e-2, False),
        ("ppo", "update__head_lr", 1e-2, True),
        ("t1", "run__oversample", 2, False),
        ("grpo", "run__oversample", 2, False),
        ("dapo", "run__oversample", 2, True),
        ("grpo", "run__teacher", "smollm2", False),
        ("distill", "run__teacher", "smollm2", True),
    ],
)
def test_a_setting_that_nothing_reads_is_named(
    tmp_path: Path, recipe: str, setting: str, value: object, does: bool
) -> None:
    name = setting.replace("__", ".")
    found = noted(tmp_path, recipe, **{setting: value})
    assert [note.startswith(f"note: {name} does nothing with {recipe}: it ") for note in found] == (
        [] if does else [True]
    )
    assert noted(tmp_path, recipe) == []


def test_who_asks_the_tasks_own_check() -> None:
    asking = {name for name, recipe in catalogue().items() if undecided(recipe)}
    assert {
        "rft",
        "nft",
        "hpt",
        "re_rest",
        "prime",
        "guide",
        "scaf_grpo",
        "lemma",
        "relift",
        "sws",
        "carft",
    } <= asking
    assert not asking & {"grpo", "dapo", "gspo", "ppo", "rloo", "reinforce", "dpo", "reinforce_ada", "sec"}
    assert "in its credit" in undecided(find("rft"))[0]
    assert "in its filter and credit" not in undecided(find("rft"))[0]


def test_it_is_said_when_a_reward_is_given(tmp_path: Path, capsys) -> None:
    for number, (recipe, reward, said) in enumerate(
        [("rft", lambda episode: 1.0, True), ("rft", None, False), ("grpo", lambda episode: 1.0, False)]
    ):
        plan = letters.plan(tmp_path, recipe, 1, run__eval_problems=0)
        start(plan, tmp_path / f"run{number}", letters.words(), reward).close()
        assert ("the reward function does not change that" in capsys.readouterr().err) == said


@pytest.mark.parametrize(("name", "offered"), [("grpo", False), ("ppo", True)])
def test_a_recipes_page_offers_what_it_reads(name: str, offered: bool) -> None:
    from etude.docs.method_page import facts

    (page,) = facts(name)
    assert ("update.head_lr" in page["settings"]) == offered
    assert "update.lr" in page["settings"]
