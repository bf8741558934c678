"""Rewards of several parts, reward models from pairs, and how well they tell answers apart."""

import asyncio
import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import worlds_of_letters as letters
from etude.cli import app
from etude.errors import UserError
from etude.evaluate.inference import played
from etude.evaluate.preferences import measured
from etude.fixtures.examples import example_episode, example_group
from etude.reward.combined import Combined
from etude.reward.model import RewardModel
from etude.reward.parts import Options, Part, absolute, parse, read
from etude.reward.scores import Scores
from etude.tasks.check import Unjudged
from etude.tasks.spec import as_pairs
from etude.train.judged_pairs import examine
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Message, Task


def part(name: str, value: float, **options: object) -> Part:
    return Part(name, lambda episode: value, Options(name, **options))


def scored(*parts: Part) -> dict[str, float]:
    return asyncio.run(Combined(parts)(example_episode(1.0)))


def test_parts_are_weighed_and_recorded_by_name() -> None:
    assert scored(part("a", 2.0, weight=0.5), part("b", -1.0)) == {"a": 2.0, "b": -1.0, "reward": 0.0}


def test_what_has_no_weight_is_only_watched() -> None:
    assert scored(part("a", 2.0), part("b", 9.0, weight=0.0)) == {"a": 2.0, "watched/b": 9.0, "reward": 2.0}


def test_behind_a_gate_that_is_not_passed_nothing_is_asked() -> None:
    def never(episode: object) -> float:
        raise AssertionError("asked all the same")

    quality = Part("quality", never, Options("quality"))
    assert scored(part("compiles", 0.0, gate=1.0, weight=0.5), quality) == {"compiles": 0.0, "reward": 0.0}
    passed = scored(part("compiles", 1.0, gate=1.0, weight=0.5), part("quality", 0.25))
    assert passed == {"compiles": 1.0, "quality": 0.25, "reward": 0.75}


def test_transforms_by_hand() -> None:
    one = scored(part("a", 2.0, transform="log_sigmoid", centre=0.5))["reward"]
    assert one == pytest.approx(-math.log1p(math.exp(-1.5)))
    assert scored(part("a", 7.0, low=-1.0, high=3.0))["reward"] == 3.0
    assert scored(part("a", 7.0, centre=5.0))["reward"] == 2.0


def test_running_statistics_are_those_of_the_steps_before() -> None:
    stage = Combined([part("a", 5.0, transform="normalise")])
    first = asyncio.run(stage(example_episode(1.0)))["reward"]
    for values in ((1.0, 3.0), (5.0,)):
        episodes = [example_episode(1.0).with_scores({"a": v}) for v in values]
        group = example_group([1.0])
        stage.observe([type(group)(group.task, tuple(episodes))], [], None)
    found = [asyncio.run(stage(example_episode(1.0)))["reward"]]
    again = Combined([part("a", 5.0, transform="normalise")])
    again.load_state_dict(stage.state_dict())
    found.append(asyncio.run(again(example_episode(1.0)))["reward"])
    assert first == 5.0
    assert found == pytest.approx([(5 - 3) / (np.std([1, 3, 5]) + 1e-6)] * 2)


def test_named_parts_of_a_function_and_what_a_judge_says_are_kept() -> None:
    def several(episode: object) -> Scores:
        return Scores({"reward": 1.0, "form": 0.5}, {"said": "well"})

    found = asyncio.run(Combined([Part("j", several, Options("j"))])(example_episode(1.0)))
    assert found == {"j": 1.0, "j/form": 0.5, "reward": 1.0}
    assert found.notes == {"j": {"said": "well"}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("chekc", "no source 'chekc'"),
        ("check,weight", "must read option=value"),
        ("check,weight=nan", "finite"),
        ("check,wieght=1", "no option 'wieght'"),
        ("check,transform=square", "no transform 'square'"),
        ("check,low=2,high=1", "must not be above"),
        ("check,name=reward", "cannot be called 'reward'"),
        ("./nowhere.py:f", "there is no file"),
        ("model:nowhere", "is no reward model"),
        ("math:nothing", "no function 'nothing'"),
    ],
)
def test_what_cannot_be_read_is_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse(text)


def test_names_are_unique_and_something_is_rewarded() -> None:
    assert [p.name for p in read(["check", "check,weight=0.5"])] == ["check", "check2"]
    with pytest.raises(UserError, match="two rewards are called"):
        read(["check,name=a", "length,name=a"])
    with pytest.raises(UserError, match="weight 0"):
        read(["check,weight=0"])


def test_paths_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("model:rm,weight=1") == f"model:{tmp_path / 'rm'},weight=1"
    assert absolute("./a.py:f, weight=1") == f"{tmp_path / 'a.py'}:f, weight=1"
    assert absolute("length") == "length"


# ---- pairs with known labels -------------------------------------------------------------------------


def pair(chosen: str, rejected: str, kind: str = "k", item: str | None = None) -> Task:
    meta = {"chosen": chosen, "rejected": rejected, "item": item or chosen + rejected}
    return Task((Message("user", chosen + rejected),), Unjudged(), kind=kind, meta=meta)


def test_accuracy_calibration_and_length_by_hand() -> None:
    tasks = [pair("a", "bb"), pair("cc", "d"), pair("ee", "f"), pair("g", "h", "other")]
    numbers = {"a": 1.0, "bb": 0.0, "cc": 2.0, "d": 0.0, "ee": 0.0, "f": 1.0, "g": 3.0, "h": 3.0}
    found = measured(tasks, lambda asked: np.array([numbers[text] for _, text in asked]))
    assert found.accuracy.mean == pytest.approx((1 + 1 + 0 + 0.5) / 4)
    assert {k: i.mean for k, i in found.by_kind.items()} == {"k": pytest.approx(2 / 3), "other": 0.5}
    assert (found.shorter.mean, found.longer.mean) == (1.0, 0.5)
    assert found.length_alone == pytest.approx((0 + 1 + 1 + 0.5) / 4)
    nats = sum(math.log1p(math.exp(-m)) for m in (1, 2, -1, 0)) / 4
    assert found.nats == pytest.approx(nats)
    assert found.chance
    assert "no better than chance" in found.screen


def test_a_row_is_right_where_the_chosen_answer_beats_every_rejected_one() -> None:
    tasks = [pair("a", "b", item="1"), pair("a", "c", item="1"), pair("d", "e", item="2")]
    numbers = {"a": 1.0, "b": 0.0, "c": 2.0, "d": 1.0, "e": 0.0}
    found = measured(tasks, lambda asked: np.array([numbers[text] for _, text in asked]))
    assert (found.pairs, found.accuracy.mean, found.accuracy.problems) == (3, 0.5, 2)


def test_members_of_an_ensemble_agree_or_not() -> None:
    found = measured([pair("a", "b")], lambda asked: np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    assert found.agreement == pytest.approx(2 / 3)
    assert found.accuracy.mean == 1.0


# ---- a reward model ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of an ensemble of two that learns to like 'a', and pairs that it never saw."""
    place = tmp_path_factory.mktemp("rm")
    rows = [{"prompt": f"{p}{q}", "chosen": "a", "rejected": r} for p in "abc" for q in "abc" for r in "bcd"]
    for name, part in (("pairs", rows[:21]), ("held", rows[21:])):
        (place / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in part), encoding="utf-8")
    plan = letters.plan(
        place,
        "reward_model",
        8,
        update__lr=1e-3,
        update__head_lr=1e-2,
        objective__members=2,
        run__tasks_per_step=8,
    )
    run = start(plan.but(tasks=as_pairs(str(place / "pairs.jsonl"))), place / "run")
    train(run)
    run.save_model()
    run.close()
    return place / "run", place / "held.jsonl"


def test_it_tells_apart_what_it_was_taught(learned: tuple[Path, Path]) -> None:
    run, held = learned
    found = examine(str(run), str(held))
    assert found.accuracy.mean == 1.0
    assert not found.chance
    assert found.agreement is not None
    model = RewardModel(str(run))
    good, bad = model.score("ab", ["a", "c"])
    assert good > bad
    values, _ = model.members([("ab", "a")])
    assert values.shape == (1, 2)
    assert values[0, 0] != values[0, 1]
    least = RewardModel(str(run), "min").score("ab", ["a"])[0]
    assert least == pytest.approx(values.min()) == pytest.approx(good, abs=1.0)


def test_it_chooses_among_drafts(learned: tuple[Path, Path], tmp_path: Path) -> None:
    """Best of n by a reward model gives the draft with its highest number, and pays for what it reads."""
    run, _ = learned
    training = start(
        letters.plan(
            tmp_path,
            "best_of_n",
            1,
            rollout__by=f"model:{run}",
            rollout__n=8,
            run__eval_problems=0,
        ),
        tmp_path / "run",
        letters.words(),
    )
    train(training)
    training.close()
    model, rows = RewardModel(str(run)), training.directory.episodes(columns=["notes"]).to_pylist()
    differ = 0
    for row in rows:
        facts = json.loads(row["notes"])["search"]
        answers = [n for n in facts["nodes"] if n["answer"] is not None] or facts["nodes"]
        scores = [n["score"] for n in answers]
        chosen = [n["score"] for n in facts["nodes"] if n.get("chosen")]
        assert chosen == [max(scores)]
        differ += len(set(scores)) > 1
        spent = facts["spent"]["models"]["reward model"]
        assert spent["scored"] > 0
        assert spent["flops"] == pytest.approx(2 * model.policy.meter.size * spent["scored"])
    assert differ > len(rows) / 2
    with pytest.raises(UserError, match="no reward model"):
        played("best_of_n:by=model:nowhere")
    with pytest.raises(UserError, match="did you mean 'agreement'"):
        played("best_of_n:by=agreemnt")


def test_it_rewards_a_run_beside_other_parts(learned: tuple[Path, Path], tmp_path: Path) -> None:
    run, _ = learned
    rewards = (f"model:{run},name=liked", "length,weight=-0.1", "check,weight=0")
    plan = letters.plan(tmp_path, "grpo", 2, run__eval_problems=0).but(rewards=rewards)
    made = start(plan, tmp_path / "run", letters.words())
    train(made)
    made.close()
    metrics = made.directory.metrics()[-1]
    assert {"score/liked", "score/length", "score/watched/check"} <= metrics.keys()
    scores = json.loads(made.directory.episodes(columns=["scores"]).to_pylist()[0]["scores"])
    assert scores["reward"] == pytest.approx(scores["liked"] - 0.1 * scores["length"], abs=1e-6)
    assert made.directory.config["plan"]["rewards"][0] == f"model:{run},name=liked"
    again, _ = resume(tmp_path / "run", letters.words())
    assert again.plan.rewards == made.plan.rewards
    again.close()


def test_a_reward_is_examined_before_it_is_trusted(learned: tuple[Path, Path]) -> None:
    run, held = learned
    result = CliRunner().invoke(app, ["check", "--pairs", str(held), "--reward", f"model:{run}"])
    assert result.exit_code == 0, result.output
    result = CliRunner().invoke(app, ["check", "--pairs", str(held), "--reward", "length"])
    assert result.exit_code == 2
    result = CliRunner().invoke(app, ["eval", str(run), "--pairs", str(held), "--json"])
    assert json.loads(result.output)["accuracy"]["mean"] == 1.0


def test_a_prompt_without_an_answer_is_sampled_and_rewarded(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{p}{q}"}) + "\n" for p in "abcd" for q in "abcd"))
    plan = letters.plan(tmp_path, "grpo", 1).but(tasks=f"{path}:check=none")
    made = start(plan, tmp_path / "run", reward=lambda episode: float("a" in episode.text))
    train(made)
    made.close()
    assert made.directory.metrics()[0]["errors"] == 0
    assert not made.holdout
