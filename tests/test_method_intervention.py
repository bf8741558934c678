"""InT: corrections of the first wrong step; and runs of all methods that probe."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

import test_resume as resumed
import toys
import worlds_of_letters as letters
from etude.rollout.intervene import first_departure, read_proposal
from etude.tasks import TaskSet
from etude.types import Episode, Group, Message, Task, Verdict
from lessons import laws_hold, right_if, scripted, setting

EACH_TOKEN = {"group_rollout.separator": ""}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("pav", EACH_TOKEN),
        ("spae", EACH_TOKEN),
        ("intervention", {"group_rollout.proposer": "reference", **EACH_TOKEN}),
    ],
)
def test_laws_hold_where_steps_are_short(name: str, settings: dict) -> None:
    laws_hold(name, settings)


# ---- InT -------------------------------------------------------------------------------------------------

SUM = toys.task(0, right_if("3+4\n=7"), reference="3+4\n=7", answer="=7")


def intervened(settings: dict, replies: list[str], task: Task = SUM) -> Group:
    stages, *_ = setting("intervention", {"group_rollout.continuations": 2, **settings})
    return scripted(stages, replies, task, samples=2)[0]


def tagged_text(episode: Episode) -> list[tuple[str, str]]:
    return [(s.tag, toys.tokenizer().decode(s.tokens)) for s in episode.spans[1:]]


FAILED_ATTEMPTS = ["3+5\n=8", "x"]


@pytest.mark.parametrize("proposer", ["self", "reference"])
def test_the_first_wrong_step_is_replaced(proposer: str) -> None:
    asked = ["I see.\nStep 1: 3+4"] if proposer == "self" else []
    group = intervened({"group_rollout.proposer": proposer}, [*FAILED_ATTEMPTS, *asked, "=9", "=7"])
    (episode,) = group.demonstrations
    assert tagged_text(episode) == [("intervention", "3+4\n")]
    assert episode.index not in [e.index for e in group.episodes], "its random streams are its own"
    assert [e.correct for e in group.episodes] == [False, False]
    stages, where, _ = setting("intervention")
    (signal,) = (s for s in stages["credit"]([group], where) if s.episode is episode)
    assert signal.weights["imitation"].sum() == 4


def test_steps_before_it_are_imitated_and_what_follows_only_if_asked() -> None:
    replies = ["3+4\n=8", "x", "2: = seven"]
    task = replace(SUM, check=right_if("3+4\n= seven\nso 7"))
    group = intervened({"group_rollout.suffix": True}, [*replies, "no", "so 7"], task)
    (episode,) = group.demonstrations
    assert tagged_text(episode) == [("prefix", "3+4\n"), ("intervention", "= seven\n"), ("probe", "so 7")]
    for prefix, expected in ((True, 4 + 8 + 5), (False, 8 + 5)):
        stages, where, _ = setting("intervention", {"credit.imitate_prefix": prefix})
        signals = stages["credit"]([group], where)
        (signal,) = (s for s in signals if s.episode is episode)
        assert signal.weights["imitation"].sum() == expected
        assert not signal.advantage.any()
    (short,) = intervened({}, [*replies, "no", "so 7"], task).demonstrations
    assert tagged_text(short) == [("prefix", "3+4\n"), ("intervention", "= seven\n")]


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([*FAILED_ATTEMPTS, "1: 3+4", "=8", "=9"], "no continuation is right"),
        ([*FAILED_ATTEMPTS, "2: =7"], "it gives the answer away"),
        ([*FAILED_ATTEMPTS, "all is well"], "nothing was proposed"),
        ([*FAILED_ATTEMPTS, "3: 3+4"], "there is no such step"),
        (["3+4\n=7", "x"], "an attempt is right"),
    ],
)
def test_no_intervention_where(replies: list[str], why: str) -> None:
    group = intervened({}, replies)
    assert group.demonstrations == (), why
    assert group.failed == ()
    assert len(group.episodes) == 2


def test_proposals_are_read() -> None:
    assert read_proposal("1: no\n Step 2) yes.", 2) == (1, "yes.")
    assert read_proposal("2:", 2) is None
    assert first_departure(["a", "b"], ["a", "c", "d"]) == (1, "c")
    assert first_departure(["a"], ["a", "c"]) is None
    assert first_departure(["a", "b"], ["a"]) is None


def test_grpo_may_begin_later() -> None:
    stages, where, groups = setting("intervention", {"credit.begin_at": 0.5})
    assert stages["credit"](groups, where) == []
    where.progress = 0.5
    assert len(stages["credit"](groups, where)) == 16


# ---- runs ------------------------------------------------------------------------------------------------


class Second:
    """Right iff the second letter is this. Picklable."""

    def __init__(self, letter: str) -> None:
        self.letter = letter

    def __call__(self, answer: str) -> Verdict:
        right = answer.strip()[1:2] == self.letter
        return Verdict(float(right), right)


def letter_tasks() -> TaskSet:
    found = []
    for word in map("".join, itertools.product(letters.LETTERS, repeat=4)):
        other = letters.LETTERS[(letters.LETTERS.index(word[1]) + 1) % 4]
        found.append(
            Task((Message("user", word),), Second(word[1]), answer=word[1], reference=other + word[1])
        )
    return TaskSet.of(found, name="words")


PROBING = {
    "pav": {"group_rollout__probes": 2},
    "spae": {"group_rollout__probes": 2, "group_rollout__answer_tokens": 2},
    "intervention": {
        "group_rollout__proposer": "reference",
        "group_rollout__continuations": 4,
        "group_rollout__end_at": 1.0,
    },
}


@pytest.mark.parametrize("recipe", list(PROBING))
def test_probing_runs_resume_exactly(recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared test's answers hold no separator; here every token is a step."""
    more = {"group_rollout__separator": "", "run__max_tokens": 3, **PROBING[recipe]}
    plan = letters.plan
    monkeypatch.setattr(letters, "words", letter_tasks)
    monkeypatch.setattr(letters, "plan", lambda *a, **k: plan(*a, **{**k, "run__group_size": 3, **more}))
    resumed.test_two_and_one_steps_are_three(recipe, tmp_path)
    metrics, rows = resumed.facts(tmp_path / "whole")
    if recipe == "intervention":
        assert any("loss/imitation" in m for m in metrics)
        assert any(m["loss/policy"] for m in metrics if "loss/policy" in m)
    assert rows
