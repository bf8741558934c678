"""Why nothing can be learned is told by its cause: the reward, the checker, a limit, the learning rate, a broken model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import worlds_of_letters as letters
from etude.errors import Refused
from etude.report.run import RunDirectory
from etude.reward.noise import without_noise
from etude.tasks import TaskSet
from etude.tasks.program import Program
from etude.train import checkpoint
from etude.train.loop import train
from etude.train.preflight import preflight
from etude.train.run import Run
from etude.train.setup import start
from etude.types import Episode, Group, Message, Task, Verdict


def run_with(
    place: Path, tasks: TaskSet | None = None, recipe: str = "grpo", steps: int = 2, reward=None, **more
) -> Run:
    changes = {"run__eval_problems": 0, "run__tasks_per_step": 6, "run__group_size": 6, **more}
    return start(
        letters.plan(place, recipe, steps, **changes), place / "run", tasks or letters.words(), reward
    )


def cause(place: Path, *given, **more) -> tuple[str, str]:
    run = run_with(place, *given, **more)
    found = preflight(run)
    run.close()
    return found.cause, found.advice


def never(answer: str) -> Verdict:
    return Verdict(0.0, False)


def hopeless() -> TaskSet:
    """Words whose check accepts nothing."""
    return TaskSet.of(
        [Task((Message("user", w),), never, "first", answer="zz") for w in ("ab", "ba", "cd", "dc", "ca")]
    )


def test_a_constant_reward_is_told_whatever_the_check_says(tmp_path: Path) -> None:
    free = TaskSet.of([replace(t, answer=None) for t in hopeless().sources[0].tasks("train")])
    name, said = cause(tmp_path, free, reward=lambda episode: 1.0)
    assert name == "reward"
    assert "constant (1)" in said


def test_a_reward_that_follows_the_check_is_not_blamed(tmp_path: Path) -> None:
    free = TaskSet.of([replace(t, answer=None) for t in hopeless().sources[0].tasks("train")])
    assert cause(tmp_path, free, reward=lambda episode: float(episode.correct))[0] in ("difficulty", "length")


@pytest.mark.parametrize("recipe", ["grpo", "reinforce_pp"])
def test_rounding_is_no_signal(recipe: str, tmp_path: Path) -> None:
    def noisy(episode: Episode) -> float:
        return 0.3 + 1e-8 * float(np.sum(episode.tokens) % 7)

    name, said = cause(tmp_path, recipe=recipe, reward=noisy)
    assert name == "reward"
    assert "differences up to 1e-06 are taken for rounding" in said


def test_attempts_that_differ_are_not_said_to_be_alike(tmp_path: Path) -> None:
    """Where a recipe's filter keeps none of them, for instance."""
    run = run_with(tmp_path)
    run.filter = lambda groups, context: []
    found = preflight(run)
    run.close()
    assert found.mixed > 0
    assert found.cause == "recipe"
    assert "attempts differ" in found.advice


def test_rewards_are_levelled_only_where_all_are_nearly_the_same() -> None:
    def group(*rewards: float) -> Group:
        task = Task("a", never)
        return Group(task, tuple(Episode(task, (), scores={"reward": r, "other": r}) for r in rewards))

    def levelled(*groups: Group) -> list[list[float]]:
        return [g.rewards.tolist() for g in without_noise(groups)]

    assert levelled(group(0.5, 0.5 + 1e-8), group(0.1, 0.2)) == [[0.5, 0.5], [0.1, 0.2]]
    assert levelled(group(0.5, 0.5), group(0.5 + 1e-7, 0.5 + 1e-7)) == [[0.5, 0.5], [0.5, 0.5]]
    assert levelled(group(0.5, 0.5 + 1e-5), group(), group(0.5)) == [[0.5, 0.5 + 1e-5], [], [0.5]]
    assert [e.scores["other"] for e in without_noise([group(0.5, 0.5 + 1e-8)])[0].episodes] == [
        0.5,
        0.5 + 1e-8,
    ]


RATES = {
    "zero": ({"update__lr": 0}, "update.lr is 0"),
    "too small": ({"update__lr": 1e-30}, "update.lr=1e-30 is less than float32 can add"),
    "long warm-up": ({"update__warmup": 2}, "update.warmup=2 is no shorter than the run (2 steps)"),
}


@pytest.mark.parametrize("case", list(RATES))
def test_a_rate_that_changes_nothing_is_refused(case: str, tmp_path: Path) -> None:
    changes, wanted = RATES[case]
    name, said = cause(tmp_path, **changes)
    assert name == "learning rate"
    assert said.startswith(wanted)


def test_small_rates_that_people_use_are_not_refused(tmp_path: Path) -> None:
    run = run_with(tmp_path, update__lr=1e-7, update__warmup=1)
    before = [p.detach().clone() for _, p in run.learner.policy.parameters()]
    assert run.learner.idle(2) == ""
    train(run)
    run.close()
    assert any((a != p).any() for a, (_, p) in zip(before, run.learner.policy.parameters(), strict=True))


def test_a_check_that_rejects_its_gold_is_not_a_matter_of_form(tmp_path: Path) -> None:
    """The gold stands in every reply, and the check accepts nothing."""
    tasks = [replace(t, answer="") for t in hopeless().sources[0].tasks("train")]
    told = TaskSet.of([replace(t, answer="a") for t in tasks])
    name, said = cause(tmp_path, told)
    assert name == "checker"
    assert "rejects the task's own gold answer ('a' to '" in said


def test_a_program_that_fails_its_own_cases_is_not_difficult(tmp_path: Path) -> None:
    gold = "def f(a):\n    return a + 1"
    rows = [
        Task((Message("user", w),), Program("f", (((1,), 3),), gold), answer=gold)
        for w in ("ab", "ba", "cd", "dc")
    ]
    name, said = cause(tmp_path, TaskSet.of(rows))
    assert name == "checker"
    assert "own gold answer" in said


def test_some_bad_golds_are_a_warning_where_others_can_be_learned(tmp_path: Path) -> None:
    source = letters.words().sources[0]
    tasks = [replace(t, check=never) if i % 2 else t for i, t in enumerate(source.tasks("train"))]
    run = run_with(tmp_path, TaskSet.of(tasks))
    found = preflight(run)
    run.close()
    assert found.cause == ""
    assert "Warning: the check of" in found.sentence


def test_the_limit_that_cuts_is_named(tmp_path: Path) -> None:
    free = TaskSet.of([replace(t, answer=None) for t in hopeless().sources[0].tasks("train")])
    name, said = cause(tmp_path, free, run__context=8, run__max_tokens=50)
    assert name == "context"
    assert (
        said
        == "conversations are cut off (truncated) at 8 tokens, the longest conversation; raise run.context"
    )


# ---- a model that breaks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def broken(tmp_path_factory) -> tuple[Path, str]:
    """A run that learns for some steps, then gets a learning rate that breaks it; and what it says at its end."""
    place = tmp_path_factory.mktemp("broken")
    more = {"run__tasks_per_step": 12, "update__lr": 2e-3}
    run = run_with(place, steps=60, run__checkpoint_every=5, run__patience=4, **more)

    def at(step: int, metrics: dict) -> None:
        if step == 18:
            for group in run.learner.optimiser().param_groups:
                group["base_lr"] = 0.5

    run.on_step = at
    run.checkpoint()
    with pytest.raises(Refused) as stopped:
        train(run)
    run.close()
    return place / "run", str(stopped.value)


def test_a_broken_model_is_not_told_to_look_for_easier_tasks(broken: tuple[Path, str]) -> None:
    _, said = broken
    assert "Cause: collapse: the model has degenerated since step" in said
    assert "lower update.lr (0.002), as in `etude resume" in said
    assert "--from 20 --set update.lr=0.0002`" in said
    assert "% of the answers were right at its best, " in said
    assert "nats per token away from where it began" in said
    for wrong in ("easier", "max_tokens"):
        assert wrong not in said


def test_the_last_sound_checkpoint_is_kept_and_no_more_than_three(broken: tuple[Path, str]) -> None:
    path, _ = broken
    kept = checkpoint.steps(path / "checkpoints")
    assert 20 in kept
    assert len(kept) <= 3
    (found,) = [f for f in RunDirectory.open(path).findings() if f["name"] == "update"]
    assert found["step"] == 21
    assert "lower the learning rate" in found["message"]


def test_the_newest_checkpoints_and_a_sound_one_stay(tmp_path: Path) -> None:
    for step in range(0, 60, 10):
        checkpoint.save(tmp_path, step, {}, sound=min(step, 25))
    assert checkpoint.steps(tmp_path) == [20, 40, 50]
    checkpoint.save(tmp_path, 60, {}, sound=60)
    assert checkpoint.steps(tmp_path) == [50, 60]


def test_entropy_is_read_in_steps_without_signal(broken: tuple[Path, str]) -> None:
    metrics = RunDirectory.open(broken[0]).metrics()
    dead = [m for m in metrics if m["signal_tokens"] == 0]
    assert dead
    assert all("grad_norm" not in m and m["entropy"] >= 0 for m in dead)


def test_a_distance_that_was_not_measured_is_not_reported_as_zero(tmp_path: Path) -> None:
    """Through the cache of activations the sampler's own numbers would be compared with themselves."""
    run = run_with(tmp_path, steps=3, run__precision="bf16", run__rescore_every=2, update__lr=1e-3)
    if run.learner.policy.backbone.native() is None:
        pytest.skip("no native backbone")
    train(run)
    run.close()
    first, second, third = run.directory.metrics()
    reused = not any("gap" in m for m in (first, second, third))
    assert all(("kl_sampler" in m) == ("gap" in m) for m in (first, second, third))
    assert reused or first["kl_sampler"] >= 0
    assert first["kl_update"] > 0
    assert third["kl_update"] > 0
    assert "kl_update" not in second


def test_the_size_of_an_update_by_hand(tmp_path: Path) -> None:
    """k3 of the log-probabilities that are recorded before and after."""
    run = run_with(tmp_path, steps=1, run__rescore_every=1, update__lr=1e-2)
    train(run)
    run.close()
    rows = [r for r in run.directory.episodes().to_pylist() if r["after"] is not None]
    delta = np.concatenate(
        [(np.array(r["after"]) - np.array(r["logp"]))[np.array(r["sampled"])] for r in rows]
    )
    assert run.directory.metrics()[0]["kl_update"] == pytest.approx(
        np.mean(np.exp(delta) - 1 - delta), rel=1e-4
    )
