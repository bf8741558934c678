"""Studies: what decides a hypothesis, worked by hand; one that is run, interrupted and run again."""

from __future__ import annotations

import json
import string
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import etude
from etude import cli
from etude.claims.verdict import Difference
from etude.errors import UserError
from etude.models.tiny import tiny_directory
from etude.recipe import Paper
from etude.report.page import write_report
from etude.studies import catalogue, find
from etude.study.analysis import blocks_of, judged, of_blocks, same
from etude.study.declare import (
    POINTS,
    Arm,
    Defaults,
    Hypothesis,
    Measure,
    Required,
    Study,
    Training,
    further,
    more,
)
from etude.study.session import asked_of, check, conclude, run_study, seconds
from etude.study.work import facts_file, job_of, jobs_of, perform, plan_of


def nothing(subject):
    return {}


def made(hypotheses, arms=("a", "b"), trained=True, units=(POINTS, POINTS)):
    return Study(
        name="made",
        paper=Paper("Made"),
        question="?",
        arms=tuple(Arm(n, (Training("grpo"),) if trained else ()) for n in arms),
        measures=tuple(Measure(n, unit, n, nothing) for n, unit in zip(("x", "y"), units, strict=True)),
        hypotheses=hypotheses,
    )


def rows(*tables):
    return [{"measured": table} for table in tables]


def test_a_table_is_compared_problem_by_problem() -> None:
    study = made((Hypothesis("h", "a is better", more("a", "x", "b"), least=5.0),))
    rng = np.random.default_rng(0)
    base = rng.random((4, 30)) * 0.5
    facts = {
        "a": rows(*({"x": {str(i): v + 0.2 for i, v in enumerate(row)}} for row in base)),
        "b": rows(*({"x": {str(i): v for i, v in reversed(list(enumerate(row)))}} for row in base)),
    }
    (found,) = judged(study, facts)
    assert found["label"] == "held"
    assert found["effect"] == pytest.approx(20)
    worse = made((Hypothesis("h", "b is better", more("b", "x", "a"), least=5.0),))
    assert judged(worse, facts)[0]["label"] == "reversed"


def test_numbers_a_seed_are_compared_by_students_t() -> None:
    study = made((Hypothesis("h", "a", more("a", "x", "b"), least=0.1),), units=("nats", "nats"))
    facts = {"a": rows({"x": 3.0}, {"x": 4.0}, {"x": 8.0}), "b": rows({"x": 1.0}, {"x": 1.0}, {"x": 1.0})}
    (found,) = judged(study, facts)
    gaps = np.array([2.0, 3.0, 7.0])
    reach = gaps.std(ddof=1) / 3**0.5 * stats.t.ppf(0.975, 2)
    assert (found["low"], found["high"]) == pytest.approx((4 - reach, 4 + reach))
    assert found["p"] == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)


def test_gains_on_other_problems_are_set_against_each_other() -> None:
    """A difference of differences over problems that have none in common: the doubts of both add up."""
    study = made(
        (Hypothesis("h", "x gains more", further(more("a", "x", "b"), more("a", "y", "b")), least=1.0),)
    )
    rng = np.random.default_rng(1)
    x, y = rng.random((3, 20)), rng.random((3, 40))
    facts = {
        "a": rows(
            *(
                {
                    "x": dict(zip("abcdefghijklmnopqrst", r, strict=True)),
                    "y": {str(i): v for i, v in enumerate(q)},
                }
                for r, q in zip(x, y, strict=True)
            )
        ),
        "b": rows(
            *[{"x": dict.fromkeys("abcdefghijklmnopqrst", 0.0), "y": {str(i): 0.0 for i in range(40)}}] * 3
        ),
    }
    blocks, fixed = blocks_of(study, study.hypotheses[0].contrast, facts)
    assert [b.shape for b in blocks] == [(3, 20), (3, 40)]
    assert not fixed
    difference, _ = of_blocks(blocks, fixed)
    assert difference.effect == pytest.approx(x.mean() - y.mean())
    alone = [of_blocks([b], fixed)[0] for b in blocks]
    assert difference.high - difference.low > max(d.high - d.low for d in alone) * 0.7


def test_seeds_of_what_is_not_trained_are_looks_at_one_model() -> None:
    study = made((Hypothesis("h", "a", more("a", "x", "b"), least=1.0),), trained=False)
    tables = [{"x": {str(i): float(i % 2) for i in range(40)}}]
    facts = {"a": rows(*tables), "b": rows({"x": dict.fromkeys(map(str, range(40)), 0.0)})}
    (found,) = judged(study, facts)  # a single seed is enough
    assert found["label"] == "held"
    trained = made(study.hypotheses)
    assert judged(trained, facts)[0]["label"] == "no test"


@pytest.mark.parametrize(
    ("low", "high", "says"),
    [
        (-1, 2, "held"),
        (-1, 4, "not resolved"),
        (3.5, 6, "not held"),
        (0.5, 2.5, "held"),
        (0.5, 4.0, "not resolved"),
    ],
)
def test_a_claim_of_no_difference(low: float, high: float, says: str) -> None:
    assert same(Difference((low + high) / 2, low, high, 0.0), 3.0) == says


def test_what_a_hypothesis_requires_shuts_it() -> None:
    wanted = Required("points of a", (((1.0, "a", "x")),), at_least=60)
    study = made((Hypothesis("h", "a", more("a", "x", "b"), least=1.0, requires=(wanted,)),))
    facts = {
        "a": rows(*[{"x": {"p": 0.5, "q": 0.5}}] * 2),
        "b": rows(*[{"x": {"p": 0.0, "q": 0.0}}] * 2),
    }
    (found,) = judged(study, facts)
    assert found["label"] == "no test"
    assert found["why"] == "points of a: 50 (at least 60 asked for)"


def test_a_study_that_cannot_be_decided_is_no_study() -> None:
    with pytest.raises(TypeError, match="there is no z of a"):
        made((Hypothesis("h", "a", more("a", "z", "b"), least=1.0),))
    with pytest.raises(TypeError, match="several units"):
        made((Hypothesis("h", "a", ((1.0, "a", "x"), (-1.0, "a", "y")), least=1.0),), units=(POINTS, "nats"))
    with pytest.raises(TypeError, match="least is above 0"):
        made((Hypothesis("h", "a", more("a", "x", "b"), least=0.0),))


# ---- one that is run -------------------------------------------------------------------------------------------------

MINE = """
from etude.recipe import Paper
from etude.study.declare import POINTS, Arm, Defaults, Hypothesis, Measure, Study, Training, more
from etude.study.subject import attempts

def material(making):
    (making.place / "noted.txt").write_text(making.tasks)

def look(subject):
    assert (subject.material / "noted.txt").exists()
    return attempts(subject)

STUDY = Study(
    name="mine",
    paper=Paper("Mine"),
    question="Does it train?",
    arms=(Arm("untrained"), Arm("grpo", (Training("grpo"),))),
    measures=(Measure("accuracy", POINTS, "right", look), Measure("length", "tokens", "of a reply", look)),
    hypotheses=(Hypothesis("gains", "It gains.", more("grpo", "accuracy", "untrained"), least=3.0),),
    material=material,
    defaults=Defaults(tasks="lab:kind=sum,level=0", budget="1-steps", seeds=2, problems=4, samples=2, changes={
        "run.tasks_per_step": "2", "run.group_size": "2", "run.max_tokens": "8", "run.precision": "fp32", "run.skip_preflight": "true",
    }),
)
"""


def test_a_study_of_ones_own_is_run_and_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    study = find(str(file))
    tiny = tiny_directory(
        tmp_path / "tiny", string.printable, layers=1, width=32, heads=2, kv_heads=1, seed=3
    )
    asked, out = asked_of(study, str(file), model=str(tiny)), tmp_path / "out"
    out.mkdir()
    jobs = [job_of(asked, out, "material", 0), *jobs_of(study, asked, out)]
    assert [(j.arm, j.seed) for j in jobs] == [
        ("material", 0),
        ("untrained arms", 0),
        ("grpo", 0),
        ("grpo", 1),
    ]
    for job in jobs[:3]:  # as the scheduler does, here without processes
        perform(job)
    left = conclude(study, asked, out)
    assert left["hypotheses"][0]["label"] == "no test"  # a seed is missing
    assert left["means"]["untrained"]["length"] > 0
    perform(jobs[3])
    kept = facts_file(out, "grpo", 0).stat().st_mtime_ns
    found = conclude(study, asked, out)
    assert "effect" in found["hypotheses"][0]
    facts = json.loads(facts_file(out, "grpo", 1).read_text())
    assert facts["steps"] == 1
    assert set(facts["measured"]) == {"accuracy", "length"}
    assert not jobs[3].path.exists()  # the run itself is not kept
    perform(jobs[2])
    assert facts_file(out, "grpo", 0).stat().st_mtime_ns == kept  # what is done is not done again
    (out / "results.json").write_text(json.dumps(found))
    page = write_report(out).read_text()
    assert "It gains." in page
    assert "<script" not in page


def test_plans_share_the_budget(tmp_path: Path) -> None:
    study = find("four_habits")
    asked = asked_of(study, "four_habits", budget="30-steps")
    first, second = (plan_of(asked, tmp_path, t, "m", 1) for t in study.arm("wrong").training)
    assert (first.budget.steps, second.budget.steps) == (15, 30)
    assert first.tasks == str((tmp_path / "material" / "wrong.jsonl").resolve())
    assert first.changes["run.eval_problems"] == "0"
    assert second.changes["run.eval_problems"] == "150"
    assert (first.seed, second.model) == (1, "m")
    assert second.changes["update.lr"] == "3e-4"
    assert "update.lr" not in asked_of(study, "four_habits", model="other").changes  # a rate is of a model
    (hard,) = find("simplerl_zoo").arm("hard").training
    assert plan_of(asked, tmp_path, hard, "m", 0).changes["run.eval_problems"] == "150"


def test_what_a_study_will_take_is_counted_from_a_trial() -> None:
    study = find("four_habits")
    asked = asked_of(study, "four_habits", budget="30-steps", problems=80)
    trial = {
        "seconds": 10.0,
        "trained_seconds": 4.0,
        "measured_seconds": 2.0,
        "steps": 4.0,
        "flops": 8e9,
        "tokens": 100.0,
    }
    # Starting 4 s; 45 steps of 1 s each; ten times eight problems.
    assert seconds(study.arm("wrong"), asked, trial) == pytest.approx(4 + 45 + 20)
    assert seconds(study.arm("rl"), asked, trial) == pytest.approx(4 + 30 + 20)
    by_flops = asked_of(study, "four_habits", budget="2e9-flops", problems=8)
    assert seconds(study.arm("rl"), by_flops, trial) == pytest.approx(4 + 1 + 2)
    by_time = asked_of(study, "four_habits", budget="1m", problems=8)
    assert seconds(study.arm("rl"), by_time, trial) == pytest.approx(4 + 60 + 2)
    assert seconds(find("self_check").arm("model"), asked, trial) == pytest.approx(4 + 20)


def test_what_cannot_be_used_is_said_in_a_sentence(tmp_path: Path) -> None:
    study = find("aids")
    for given, says in (
        ({"tasks": "chain_sum:max_terms=2"}, "needs tasks with hints"),
        ({"seeds": 1}, "with one seed"),
        ({"budget": "soon"}, "a budget looks like"),
    ):
        with pytest.raises(UserError, match=says):
            check(study, asked_of(study, "aids", **given), tmp_path)
    with pytest.raises(UserError, match="asks no model"):
        check(find("regret_loss"), asked_of(find("regret_loss"), "regret_loss", model="lab"), tmp_path)
    with pytest.raises(UserError, match="there is no study 'ads'; did you mean 'aids'"):
        find("ads")
    assert cli.run(["study", "nowhere"]) == 2
    assert cli.run(["study", "aids", "--record", "--seeds", "4"]) == 2


def test_another_study_is_not_taken_for_this_one(tmp_path: Path) -> None:
    from etude.compare.comparison import claim

    claim(tmp_path / "out", {"study": "other"}).release()
    study = find("regret_loss")
    with pytest.raises(UserError, match="holds another"):
        run_study("regret_loss", asked_of(study, "regret_loss"), tmp_path / "out", say=lambda text: None)


def test_the_list_and_the_python_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["studies", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(catalogue())
    assert etude.study is not None
    assert Defaults().model == "lab"
