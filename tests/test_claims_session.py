"""Running claims: what is missing is run, what was there is kept, and results are written claim by claim."""

import dataclasses
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import worlds_of_letters as letters
from etude import cli
from etude.claims import session as sessions
from etude.claims.cost import Cost
from etude.claims.runs import facts_file, flat, perform, read_facts
from etude.claims.session import Session, read_results, run_claims
from etude.claims.settings import Claim, load
from etude.docs.claims_page import claims_page
from etude.errors import UserError
from etude.train.config import Plan
from fake_runs import base_runs, facts, rising, seeds_of

GRPO_AGAIN = """
from dataclasses import replace
from etude.methods.policy_gradient.grpo import RECIPE as GRPO
RECIPE = replace(GRPO, name="again", claim="GRPO under another name ends above GRPO.")
"""
CLAIM = Claim(
    "rloo",
    "lab",
    "It ends above.",
    model="lab",
    tasks="lab",
    updates=60,
    gates={"gain": 10},
    arm="rloo",
    base="grpo",
)


def kept(out: Path, claim: Claim, arm, base) -> None:
    """Puts the facts of runs where a session looks for them."""
    for name, runs in ((claim.arm, arm), (claim.base, base)):
        for seed, run in enumerate(runs):
            file = facts_file(out, claim, name, seed)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(run))


def test_facts_that_are_there_are_judged_and_written(tmp_path):
    kept(tmp_path, CLAIM, seeds_of(rising(0.3)), base_runs())
    said: list[str] = []
    found = run_claims(Session([CLAIM], tmp_path), said.append)["rloo"]["lab"]
    assert (found["state"], found["updates"]["label"], found["seeds"]) == ("run", "held", 5)
    assert found["settings"] == CLAIM.digest
    assert found["command"] == "etude claims rloo --on lab"
    assert found == read_results(tmp_path / "results.json")["rloo"]["lab"]
    assert any("reproduces? held" in line for line in said)
    kept(tmp_path, CLAIM, seeds_of(rising(0.1)), base_runs())
    assert run_claims(Session([CLAIM], tmp_path))["rloo"]["lab"] == found, "it has its result"
    other = dataclasses.replace(CLAIM, least=3.0)
    assert run_claims(Session([other], tmp_path))["rloo"]["lab"]["updates"]["label"] == "reversed", (
        "settings changed"
    )


def test_what_five_seeds_do_not_resolve_gets_eight(tmp_path):
    """Gains of 2, 6, 2, 6, 2 points and then six times 4."""
    gains = [0.20, 0.26, 0.20, 0.26, 0.20, 0.24, 0.24, 0.24]
    arm = [facts(rising(g), seed, seed_noise=0.0) for seed, g in enumerate(gains)]
    kept(tmp_path, CLAIM, arm, base_runs(8, seed_noise=0.0))
    said: list[str] = []
    found = run_claims(Session([CLAIM], tmp_path), said.append)["rloo"]["lab"]
    assert found["seeds"] == 8
    assert any("not resolved with 5 seeds: rloo" in line for line in said)


def test_a_claim_whose_run_fails_says_so_and_the_others_go_on(tmp_path, monkeypatch):
    """The runs of `broken` fail; `rloo` has all of its own."""
    broken = dataclasses.replace(CLAIM, recipe="dr_grpo", arm="dr_grpo")
    kept(tmp_path, CLAIM, seeds_of(rising(0.3)), base_runs())

    def run_all(jobs, parallel, say, worker, ended, needed):
        missing = [j for j in jobs if not j.done]
        assert {j.arm for j in missing} == {"dr_grpo"}
        return {missing[0].path: "it is broken"}

    monkeypatch.setattr(sessions, "run_all", run_all)
    untested = Claim("ditto", "lab", "Loops.", untested="it does not loop")
    found = run_claims(Session([broken, CLAIM, untested], tmp_path), lambda _: None)
    assert found["dr_grpo"]["lab"]["state"] == "failed"
    assert found["dr_grpo"]["lab"]["why"] == "dr_grpo: it is broken"
    assert found["rloo"]["lab"]["updates"]["label"] == "held"
    assert found["ditto"]["lab"]["why"] == "it does not loop"


def test_a_model_that_cannot_read_feedback_is_not_trained_for_it(tmp_path, monkeypatch):
    claim = dataclasses.replace(CLAIM, gates={"feedback_chat": 15})
    monkeypatch.setattr(sessions, "abilities", lambda claim, out: {"feedback_chat": 9.0})
    monkeypatch.setattr(sessions, "run_all", lambda jobs, *a, **k: {j.path: "ran" for j in jobs})
    found = run_claims(Session([claim], tmp_path), lambda _: None)["rloo"]["lab"]
    assert found["updates"]["label"] == found["flops"]["label"] == "no test"
    assert "over a plain retry, before training: 9 (at least 15 asked for)" in found["flops"]["why"]
    assert "over a plain retry" in claims_page({"rloo": {"lab": found}}, [])


def test_a_base_that_does_not_learn_settles_its_claim_before_the_arm_runs(tmp_path, monkeypatch):
    kept(tmp_path, CLAIM, [], seeds_of(rising(0.01)))
    asked = []

    def run_all(jobs, *rest, needed, **more):
        asked.extend((j.arm, needed(j)) for j in jobs if not j.done)
        return {}

    monkeypatch.setattr(sessions, "run_all", run_all)
    found = run_claims(Session([CLAIM], tmp_path), lambda _: None)["rloo"]["lab"]
    assert found["updates"]["label"] == found["flops"]["label"] == "no test"
    assert "points that the base gains: " in found["updates"]["why"]
    assert asked == [("rloo", False)] * 5


def test_arms_that_cannot_be_built_are_refused_before_anything_runs(tmp_path):
    claim = dataclasses.replace(CLAIM, arm="rloo:credit.nothing=1")
    with pytest.raises(UserError, match=r"claim lab\.rloo, arm rloo:credit\.nothing=1"):
        run_claims(Session([claim], tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_trial_is_never_recorded(tmp_path):
    record = tmp_path / "record.json"
    trial = Session([CLAIM], tmp_path / "trial", record, trial=6)
    assert trial.claims[0].updates == 6
    assert trial.results != record
    assert Session([CLAIM], tmp_path, record).results == record


def test_costs_add_up():
    """A second to start, two a step, a tenth for each attempt, on half a core: 60 steps, 400 x 8 attempts at last and five
    times 400 x 2."""
    points = [{"took": 1.6, "per_problem": [["a", 1, 8], ["b", 1, 8]]}]
    found = Cost.of({"columns": {"seconds": [3.0, 5.0, 7.0]}, "curve": points, "wall": 9.6, "cpu": 4.8})
    assert (found.start, found.step, found.attempt) == pytest.approx((0.5, 1.0, 0.05))
    changes = {
        "run.eval_problems": "400",
        "run.eval_samples": "8",
        "run.curve_samples": "2",
        "run.evals": "5",
    }
    plan = Plan("grpo", "lab", "lab", "60-steps", 0, changes)
    assert found.seconds(plan) == pytest.approx((1 + 120 + 0.1 * (3200 + 5 * 800)) / 2)


def test_numbers_of_a_step_that_stages_report():
    found = dict(
        flat({"reward": 0.5, "credit": {"weight a": 2}, "rescored": {"names": ["x"]}, "flops": 1.5e12})
    )
    assert found == {"reward": 0.5, "credit.weight a": 2.0, "flops": 1.5e12}


# ---- real runs of a model of a few thousand weights ----------------------------------------------------------------------


def written(place: Path, **own: str) -> Path:
    """Claims about words of which the first letter is wanted: a method that is GRPO once more, and GRPO that hardly
    learns."""
    rows = [{"prompt": "".join(w), "answer": w[0]} for w in itertools.product("abcd", repeat=3)]
    (place / "words.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (place / "again.py").write_text(GRPO_AGAIN)
    settings = {
        "model": letters.model(place),
        "tasks": f"{place}/words.jsonl:eval_share=0.4",
        "updates": 12,
        "seeds": 2,
        "more_seeds": 2,
        "least": 15.0,  # 24 problems show no less
    }
    changes = {
        "run.precision": "fp32",
        "run.max_tokens": "2",
        "run.preflight": "2",
        "run.eval_problems": "24",
        "run.eval_samples": "8",
        "run.curve_samples": "2",
        "run.tasks_per_step": "8",
        "run.checkpoint_every": "2",
        "run.patience": "1000",
        "update.lr": "1e-2",
    }
    lines = ["[lab]", *(f"{k} = {json.dumps(v)}" for k, v in settings.items())]
    lines += ["[lab.gates]", f"gain = {own.get('gain', 10)}"]
    lines += ["[lab.changes]", *(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in changes.items())]
    lines += ["[lab.claim.again]", "says = 'It ends above.'", f"arm = {json.dumps(str(place / 'again.py'))}"]
    lines += ["base = 'grpo'"]
    lines += ["[lab.claim.grpo]", "says = 'It ends above.'", "arm = 'grpo'", "base = 'grpo:update.lr=1e-6'"]
    lines += ["learner = 'either'"]
    file = place / "mine.toml"
    file.write_text("\n".join(lines))
    return file


@pytest.fixture
def in_process(monkeypatch, tmp_path):
    """Runs are made here, one after the other: a process for each would import more than it computes."""

    def run_all(jobs, parallel, say, worker, ended, needed):
        for job in jobs:
            if not job.done:
                perform(job)
                ended(job)
        return {}

    monkeypatch.setattr(sessions, "run_all", run_all)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("in_process")
def test_claims_of_ones_own_from_the_command_line(tmp_path, capsys):
    """A planted good method, and one that is its base under another name, each trained with two seeds."""
    file = written(tmp_path)
    assert cli.run(["claims", "--file", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    good, same = found["grpo"]["lab"], found["again"]["lab"]
    assert good["updates"]["effect"] > 20
    assert good["updates"]["label"] in ("held", "not resolved"), "two seeds say little"
    assert same["updates"]["effect"] == pytest.approx(0, abs=1e-9), "the same seeds and problems: equal bits"
    assert same["updates"]["label"] == "not held"
    for result in (good, same):
        assert result["means"]["arm"]["accuracy"] > result["means"]["arm"]["start"]
        assert result["flops"]["at"] == pytest.approx(result["means"]["arm"]["flops"], rel=0.2)
    assert len(list((tmp_path / "runs" / "claims" / "facts").iterdir())) == 4
    assert not list((tmp_path / "runs" / "claims" / "arms").glob("*/seed-*/")), "the runs themselves are gone"
    samples = {
        (run["curve"][-1]["step"], *(p["per_problem"][0][2] for p in run["curve"]))
        for run in map(read_facts, (tmp_path / "runs" / "claims" / "facts").glob("*/1.json"))
    }
    assert samples == {(12, 2, 2, 2, 2, 2, 8), (36, 8, 8, 8, 8, 8, 8)}, "in full where every arm is compared"


@pytest.mark.usefixtures("in_process")
def test_an_untaught_model_is_no_test(tmp_path, capsys):
    """Where nobody gains what is asked for, nothing is said of the method."""
    file = written(tmp_path, gain="95")
    assert cli.run(["claims", "again", "--file", str(file), "--trial", "6"]) == 0
    said = capsys.readouterr().out
    assert said.count("no test") >= 2
    assert "shut points that the base gains" in said
    assert "a trial, not recorded" in said


def test_which_claims_there_are(capsys):
    assert cli.run(["claims"]) == 0
    said = capsys.readouterr().out
    assert len(said.splitlines()) == 1 + 2 * sum(c.on == "lab" for c in load())
    assert "ditto" in said
    assert "cannot be tested here" in said


def test_words_that_mean_no_claim_are_refused(tmp_path, capsys):
    for words, message in (
        (["rlo"], "there is no claim of 'rlo' on 'lab'; did you mean 'rloo'"),
        (["--on", "lub"], "there is no bed 'lub'"),
        (["--family", "policy_gradients"], "there is no claim of the family 'policy_gradients' on 'lab'"),
        (["--file", "none.toml"], "'none.toml' cannot be read as claims"),
    ):
        assert cli.run(["claims", *words]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.long
def test_a_session_that_was_killed_goes_on(tmp_path):
    file = written(tmp_path)
    command = [sys.executable, "-m", "etude", "claims", "grpo", "--file", str(file)]
    run = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, start_new_session=True)
    arms = tmp_path / "runs" / "claims" / "arms"
    until = time.monotonic() + 120
    while not list(arms.glob("*/seed-*/metrics.jsonl")) and time.monotonic() < until:
        time.sleep(0.05)
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "runs" / "claims" / "results.json").exists()
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = read_results(tmp_path / "runs" / "claims" / "results.json")
    assert found["grpo"]["lab"]["state"] == "run"
