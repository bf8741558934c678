"""A session from Python: everything that the command line does, also where an event loop is running."""

import asyncio
import inspect
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

import etude
import worlds_of_letters as letters
from etude.channels import writes
from etude.errors import UserError
from etude.event_loop import EventLoop
from etude.settings import stage
from etude.train.config import Budget, Plan, origin

SMALL = {
    "run.precision": "fp32",
    "run.max_tokens": 2,
    "run.tasks_per_step": 4,
    "run.group_size": 4,
    "run.eval_problems": 4,
    "run.eval_samples": 2,
    "run.preflight": 4,
    "update.lr": 2e-3,
}


def own_tasks() -> list[etude.Task]:
    return list(letters.words().sources[0].tasks("train"))


def session(place: Path, recipe="grpo", tasks=None, budget=2, **more) -> "etude.TrainedRun":
    return etude.train(
        recipe,
        letters.model(place) if not (place / "model").exists() else str(place / "model"),
        own_tasks() if tasks is None else tasks,
        budget,
        settings={**SMALL, **more.pop("settings", {})},
        out=place / "run",
        force=True,
        progress=False,
        **more,
    )


def test_a_session_trains_evaluates_saves_and_closes(tmp_path: Path) -> None:
    run = session(tmp_path)
    assert run.before.card.rule == "before"
    assert run.after.card.rule == "last"
    assert run.after.card.step == 2
    assert run.before.mean.problems == run.after.mean.problems == 4
    assert run.report().read_text().startswith("<!")
    assert (run.save(tmp_path / "mine") / "config.json").exists()
    with pytest.raises(UserError, match="exists already"):
        run.save(tmp_path / "mine")
    assert "2 steps" in repr(run)
    assert len(repr(run)) < 200
    assert etude.load(tmp_path / "run") == run
    found = etude.evaluate(run, own_tasks()[:3], samples=2)
    assert found.mean.problems == 3


def test_the_first_step_has_its_seconds(tmp_path: Path) -> None:
    first, second = session(tmp_path).metrics
    assert 0 < first["seconds"] < second["seconds"]
    assert first["time/rollout"] > 0
    assert min(first["time/check"], first["time/other"]) >= 0


def test_it_works_in_a_cell_where_a_loop_is_running_and_gives_the_same(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    async def cell() -> "etude.TrainedRun":
        return session(tmp_path / "a")

    inside, outside = asyncio.run(cell()), session(tmp_path / "b")
    known = ("reward", "length", "flops", "grad_norm")
    assert [[m[k] for k in known] for m in inside.metrics] == [[m[k] for k in known] for m in outside.metrics]

    async def measured() -> etude.EvalResult:
        return etude.evaluate(inside, own_tasks()[:2], samples=1)

    assert asyncio.run(measured()).mean.problems == 2


def test_errors_come_out_of_the_thread_and_it_ends() -> None:
    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("so it is")

    async def cell() -> None:
        loop = EventLoop()
        with pytest.raises(ValueError, match="so it is"):
            loop.run(failing())
        loop.close()

    before = threading.active_count()
    asyncio.run(cell())
    assert threading.active_count() == before


def test_progress_is_a_bar(tmp_path: Path, capsys) -> None:
    letters.model(tmp_path)
    etude.train(
        "grpo", str(tmp_path / "model"), own_tasks(), 1, settings=SMALL, out=tmp_path / "run", force=True
    )
    said = capsys.readouterr()
    assert "pre-flight: of " in said.err
    assert "100% of 1 steps" in said.err
    assert not said.out


def test_objects_are_given_again_on_resume(tmp_path: Path) -> None:
    recipe = replace(etude_recipe(), name="mine")
    run = session(tmp_path, recipe)
    config = run.directory.config
    assert config["plan"]["recipe"] == "mine"
    with pytest.raises(UserError, match=r"tasks of .* were given from Python"):
        etude.resume(run)
    with pytest.raises(UserError, match=r"recipe 'mine' of this run cannot be found again"):
        etude.resume(run, own_tasks())
    again = etude.resume(run, own_tasks(), recipe=recipe, progress=False)
    assert len(again.metrics) == 2


def etude_recipe() -> etude.Recipe:
    from etude.methods import find

    return find("grpo")


def test_a_recipe_of_a_module_is_named_by_it(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_methods.py").write_text(
        "from dataclasses import replace\nfrom etude.methods import find\nMINE = replace(find('grpo'), name='mine')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    import my_methods

    assert origin(my_methods.MINE) == "my_methods:MINE"
    assert Plan(my_methods.MINE, "m", "t", "1m").to_dict()["recipe"] == "my_methods:MINE"


# ---- what is given is checked when it is given -------------------------------------------------------------

NAN, INF = float("nan"), float("inf")
WRONG = {
    "unit": (lambda: Budget(50, "step"), r"Budget\.unit is 'step'; .*did you mean 'steps'"),
    "negative": (lambda: Budget(-2, "steps"), r"Budget\.amount is -2; it must be a finite number above 0"),
    "zero": (lambda: Budget(0, "steps"), r"Budget\.amount is 0"),
    "nan": (lambda: Budget(NAN, "seconds"), r"Budget\.amount is nan"),
    "infinite": (lambda: Budget(INF, "tokens"), r"Budget\.amount is inf"),
    "text": (lambda: Budget("5", "steps"), r"Budget\.amount is '5'; it must be a number"),
    "budget": (lambda: etude.train("grpo", "m", "chain_sum", [1]), r"Budget\.amount is \[1\]"),
    "recipe": (lambda: Plan(3, "m", "t", Budget(1, "steps")), r"Plan\.recipe is 3; it must be the name"),
    "model": (lambda: Plan("grpo", None, "t", "1m"), r"Plan\.model is None"),
    "plan's tasks": (lambda: Plan("grpo", "m", [], "1m"), r"Plan\.tasks is \[\]"),
    "seed": (lambda: Plan("grpo", "m", "t", "1m", seed=True), r"Plan\.seed is True; it must be an integer"),
    "changes": (lambda: Plan("grpo", "m", "t", "1m", 0, ["a"]), r"Plan\.changes is"),
    "prompt": (lambda: etude.Task(3, letters.First("a")), r"Task\.prompt is 3; it must be text"),
    "check": (lambda: etude.Task("a", "a"), r"Task\.check is 'a'; it must be a function"),
    "tasks": (lambda: etude.train("grpo", "m", [1], 1, out="/nowhere"), r"tasks is \[1\]; it must be text"),
    "no tasks": (lambda: etude.train("grpo"), r"tasks is missing"),
    "reward": (
        lambda: etude.train("grpo", "m", own_tasks(), 1, reward=3, out="/nowhere"),
        r"a reward is 3; it must be a function",
    ),
    "arms": (lambda: etude.compare("grpo", tasks="t"), r"arms is 'grpo'; it must be a list"),
}


@pytest.mark.parametrize("case", list(WRONG))
def test_what_cannot_be_used_is_one_sentence(case: str) -> None:
    make, said = WRONG[case]
    with pytest.raises(UserError, match=said) as found:
        make()
    assert "\n" not in str(found.value)


def test_text_becomes_a_message_of_the_user() -> None:
    task = etude.Task(prompt="2+2=", check=letters.First("4"))
    assert task.prompt == (etude.Message("user", "2+2="),)
    assert task.key == etude.Task((etude.Message("user", "2+2="),), letters.First("4")).key


OLD = {
    "run.attempts": ("4", "run.group_size"),
    "gather.most": ("4", "group_rollout.most"),
    "select.keep": ("4", "filter.keep"),
    "objective.mean": ("sequence", "'episode' now"),
}


@pytest.mark.parametrize("path", list(OLD))
def test_old_names_are_refused_with_the_new_one(path: str) -> None:
    from etude.train.setup import resolve

    value, now = OLD[path]
    with pytest.raises(UserError, match=now):
        resolve(Plan("grpo", "m", "t", Budget(1, "steps"), 0, {path: value}))


def test_a_methods_old_setting_is_refused_with_the_new_one(monkeypatch) -> None:
    from etude.methods.renamed import renamed_settings
    from etude.train.setup import resolve

    monkeypatch.setitem(renamed_settings(), "grpo", {"objective.gone": "objective.here"})
    with pytest.raises(UserError, match=r"'objective\.gone' is called 'objective\.here' now"):
        resolve(Plan("grpo", "m", "t", Budget(1, "steps"), 0, {"objective.gone": "1"}))


# ---- rewards -----------------------------------------------------------------------------------------------


def reading(episode: etude.Episode) -> dict[str, float]:
    return {"format": 0.2, "accuracy": episode.text.startswith(episode.task.meta["letter"])}


async def later(episode: etude.Episode) -> bool:
    await asyncio.sleep(0)
    return episode.correct


@pytest.mark.parametrize("form", ["parts", "weights", "async", "bool"])
def test_a_reward_reads_text_and_columns_and_returns_what_it_likes(form: str, tmp_path: Path) -> None:
    tasks = [replace(t, meta={"letter": t.answer}) for t in own_tasks()]
    reward = {"parts": reading, "weights": reading, "async": later, "bool": lambda e: e.correct}[form]
    weights = {"format": 0.0} if form == "weights" else None
    run = session(tmp_path, "reinforce", tasks, 1, reward=reward, reward_weights=weights)
    (step,) = run.metrics
    assert step["errors"] == 0
    if form == "parts":
        assert step["reward"] == pytest.approx(0.2 + step["score/accuracy"])
        assert step["score/accuracy"] == pytest.approx(step["correct"])
    else:
        assert step["reward"] == pytest.approx(step["correct"])


@pytest.mark.parametrize("value", ["good", None, [1]])
def test_a_reward_of_another_kind_is_named(value, tmp_path: Path) -> None:
    with pytest.raises(etude.Refused, match="must return a bool, a number, or a dictionary"):
        session(tmp_path, reward=lambda episode: value)


# ---- the package -------------------------------------------------------------------------------------------


def test_the_public_names_are_lazy_and_packages_are_called() -> None:
    code = """
import sys, time
begin = time.perf_counter()
import etude
assert time.perf_counter() - begin < 0.5
assert 'torch' not in sys.modules and 'numpy' not in sys.modules
import etude.train.config
assert callable(etude.train) and callable(etude.evaluate) and callable(etude.compare)
for name in etude.__all__:
    assert getattr(etude, name) is not None
assert etude.train.config.Budget is etude.Budget
try:
    etude.nothing
except AttributeError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "module 'etude' has no attribute 'nothing'"
    assert "budget" in inspect.signature(etude.train).parameters


def test_drift_from_the_start_is_measured_every_twentieth_step(tmp_path: Path) -> None:
    quick = {"run.tasks_per_step": 2, "run.eval_problems": 0, "run.rescore_every": 0, "update.lr": 1e-2}
    run = session(tmp_path, budget=40, settings=quick)
    known = {m["step"]: m["kl_start"] for m in run.metrics if "kl_start" in m}
    assert known.keys() == {20, 40}
    assert known[20] > 1e-4
    state = etude.train.checkpoint.load(run.path / "checkpoints")[1]
    sampled = [sum(len(s) for s in spans if s.sampled) for spans in state["drift"].spans]
    assert 0 < sum(sampled) <= 256
    assert json.dumps(run.metrics)


def test_stages_are_fields_of_a_run() -> None:
    from etude.recipe import STAGES
    from etude.train.run import Run

    assert STAGES.keys() <= set(Run.__dataclass_fields__)


def test_every_further_column_of_a_file_reaches_the_reward(tmp_path: Path) -> None:
    from etude.tasks import load

    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"prompt": w, "answer": w[0], "unit": "m"}) for w in ("ab", "cd")))
    task = load(str(file)).draw(etude.Request(), 0, 0)
    assert task.meta["unit"] == "m"


def test_rows_that_credit_does_not_declare_are_refused(tmp_path: Path) -> None:
    import numpy as np

    from etude.train.loop import train
    from etude.train.setup import resolve, start

    run = start(letters.plan(tmp_path, "grpo", 1, run__eval_problems=0), tmp_path / "run", letters.words())
    credit = run.credit
    run.credit = lambda groups, context: [
        replace(s, extras={"spare": np.zeros(len(s.advantage), np.float32)}) for s in credit(groups, context)
    ]
    with pytest.raises(UserError, match="credit writes the row 'spare', which it does not declare"):
        train(run)
    run.close()
    unread = replace(etude_recipe(), name="mine", stages={"credit": stage(declares_much)})
    with pytest.raises(
        UserError, match="mine: credit writes the extra 'spare', which the objective never reads"
    ):
        resolve(Plan(unread, "m", "t", Budget(1, "steps")))


@writes("policy", extras=("spare",))
def declares_much() -> etude.Credit:
    return lambda groups, context: []


def plan_of(place: Path, more: str = "", recipe: str = 'recipe = "rloo"') -> str:
    rows = "\n".join(json.dumps({"prompt": f"{i}", "answer": "a"}) for i in range(40))
    (place / "t.jsonl").write_text(rows)
    lines = [
        recipe,
        f'model = "{letters.model(place)}"',
        f'tasks = "{place / "t.jsonl"}"',
        "steps = 1",
        "seed = 3",
    ]
    lines += [f'out = "{place / "planned"}"', *(f"{k} = {json.dumps(v)}" for k, v in SMALL.items())]
    (place / "plan.toml").write_text("\n".join([*lines, 'prompt = "{question}!"', more]))
    return str(place / "plan.toml")


def test_a_plan_file_is_trained(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    run = etude.train(plan, force=True, progress=False)
    config = run.directory.config
    assert (run.path, config["recipe"], config["plan"]["seed"]) == (tmp_path / "planned", "rloo", 3)
    assert config["settings"]["prompt"] == "{question}!"
    other = etude.train(
        plan, seed=4, out=tmp_path / "other", settings={"run.group_size": 2}, force=True, progress=False
    )
    assert other.directory.config["plan"]["seed"] == 4
    assert other.directory.config["settings"]["group_size"] == 2
    assert other.directory.config["settings"]["tasks_per_step"] == SMALL["run.tasks_per_step"]


def test_a_plan_that_is_no_single_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="which is a comparison"):
        etude.train(plan_of(tmp_path, "[sweep]\nupdate.lr = [1e-5, 1e-4]"))
    with pytest.raises(UserError, match="names several recipes"):
        etude.train(plan_of(tmp_path, recipe='recipes = ["grpo", "rloo"]'))
    with pytest.raises(UserError, match="'seeds' is not for this function; did you mean 'seed'"):
        etude.train(plan_of(tmp_path, "seeds = 3"))


def test_a_sweep_over_ones_own_file_is_compared_on_tuning_problems(tmp_path: Path, monkeypatch) -> None:
    from etude.compare import session as comparing

    seen = []
    monkeypatch.setattr(comparing, "run_comparison", lambda comparison, say: seen.append(comparison))
    etude.compare(plan_of(tmp_path, "[sweep]\nupdate.lr = [1e-5, 1e-4]"), seeds=2, quiet=True)
    (comparison,) = seen
    assert [arm.changes["update.lr"] for arm in comparison.arms] == ["1e-05", "0.0001"]
    assert comparison.changes["run.tuning"] == "true"
    assert list(comparison.seeds) == [0, 1]
    run = etude.train(plan_of(tmp_path), settings={"run.tuning": True}, force=True, progress=False)
    assert run.after.mean.problems == 4
