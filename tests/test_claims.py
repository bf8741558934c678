"""Claims: the whole way from the facts of runs to verdicts, by runs made by hand; settings that can be built; pages that are
not stale."""

import dataclasses
from pathlib import Path

import pytest

from etude.claims.gates import gates, reading
from etude.claims.judge import judged, unresolved
from etude.claims.runs import jobs_of, name_of
from etude.claims.settings import Claim, load, of_recipe
from etude.docs.claims import labels, read
from etude.docs.claims_page import claims_page, picture
from etude.docs.method_docs import pages
from etude.docs.method_page import facts, one
from etude.docs.papers import papers_page
from etude.errors import UserError
from etude.methods import catalogue
from etude.recipe import Manipulated
from etude.train.setup import resolve
from fake_runs import base_runs, rising, seeds_of

ROOT = Path(__file__).parents[1]
CLAIM = Claim(
    "rloo",
    "lab",
    "It ends above.",
    model="lab",
    tasks="lab",
    updates=60,
    gates={"gain": 10, "mixed": 40, "steps": 95},
    arm="rloo",
    base="grpo",
)
EQUAL = rising(0.2)

UNTRAINED = {"prompting", "search", "test_time"}  # topics of methods that answer, and train nothing


def but(**changes):
    return dataclasses.replace(CLAIM, **changes)


def said(arm, base=None, claim=CLAIM, **more):
    found = judged(claim, arm, base or base_runs(), **more)
    return found["updates"]["label"], found["flops"]["label"], found


# ---- planted methods ---------------------------------------------------------------------------------------------------


def test_a_planted_useless_method_is_not_held():
    reproduces, pays, found = said(seeds_of(EQUAL))
    assert (reproduces, pays) == ("not held", "not held")
    assert found["updates"]["visible"] < CLAIM.least, "an effect that counts would have been seen"


def test_a_planted_good_method_is_held():
    reproduces, pays, found = said(seeds_of(rising(0.3)))
    assert (reproduces, pays) == ("held", "held")
    assert found["updates"]["effect"] == pytest.approx(10, abs=2)
    assert all(g["passed"] for g in found["gates"])


def test_a_good_method_that_is_dear_reproduces_and_does_not_pay():
    """Three times the FLOPs for 4 points, of a base that goes on rising."""
    course = rising(0.4, until=180)
    first = seeds_of(course, 1, 100, updates=180, start=True)
    base = [*first, *seeds_of(course, 4, 101, updates=180)]
    arm = seeds_of(rising(0.18), flops=3e9)
    reproduces, pays, found = said(arm, base)
    assert (reproduces, pays) == ("held", "reversed")
    assert found["flops"]["at"] == pytest.approx(180e9)


def test_a_method_that_is_harmful_is_reversed():
    assert said(seeds_of(rising(0.1)))[:2] == ("reversed", "reversed")


def test_a_method_that_is_dearer_than_all_of_the_base_is_read_where_the_base_ends():
    """Ten times the FLOPs: after 18 of its 60 updates it has had what the base's 180 cost."""
    found = judged(CLAIM, seeds_of(rising(0.3), flops=1e10), base_runs())
    assert found["flops"]["at"] == pytest.approx(180e9)
    assert found["flops"]["effect"] == pytest.approx(100 * (0.3 * 18 / 60 - 0.2), abs=2)


def test_few_seeds_that_disagree_are_not_resolved_and_ask_for_more():
    arm = seeds_of(rising(0.22), seed_noise=0.05)
    found = judged(CLAIM, arm, base_runs())
    assert found["updates"]["label"] == "not resolved"
    assert unresolved(found)
    assert not unresolved(judged(CLAIM, seeds_of(EQUAL), base_runs()))


# ---- gates -------------------------------------------------------------------------------------------------------------


def test_an_untaught_model_is_no_test():
    """Nobody learns anything: not "not held", but no test, with the figure."""
    flat = rising(0.01)
    base = [*seeds_of(flat, 1, 100, updates=180, start=True), *seeds_of(flat, 4, 101, updates=180)]
    reproduces, pays, found = said(seeds_of(flat), base)
    assert (reproduces, pays) == ("no test", "no test")
    assert "points that the base gains" in found["updates"]["why"]
    assert "at least 10" in found["updates"]["why"]
    assert "effect" not in found["updates"]
    only = dataclasses.replace(CLAIM, learner="either")
    assert said(seeds_of(rising(0.2)), base, only)[0] == "held", (
        "where the claim is that the base does not learn"
    )


@pytest.mark.parametrize(
    ("gate", "bound", "how", "sentence"),
    [
        ("mixed", 40, {"columns": {"signal": 0.3}}, "% of the base's groups that are mixed: 30"),
        ("unsolved", 40, {"columns": {"unsolved": 0.2}}, "without a right attempt: 20"),
        ("steps", 95, {"steps_right": 0.5}, "whose steps are right: 50"),
    ],
)
def test_a_gate_that_is_shut_is_named(gate, bound, how, sentence):
    claim = but(gates={gate: bound})
    good, bad = seeds_of(rising(0.3)), base_runs(**how)
    reproduces, _, found = said(good, bad, claim)
    assert reproduces == "no test"
    assert sentence in found["updates"]["why"]
    assert said(good, bad, but(gates={gate: 0}))[0] == "held", "a gate of 0 does not apply"


def test_steps_are_looked_at_where_the_two_are_compared():
    """A base that is right by luck from update 90 on is no reason to say nothing of update 60, nor of as many FLOPs."""
    drifted = [
        {**run, "curve": [{**p, "steps_right": 0.5 if p["step"] >= 90 else 0.99} for p in run["curve"]]}
        for run in base_runs()
    ]
    claim, cheap = but(gates={"steps": 95}), seeds_of(rising(0.3))
    assert said(cheap, drifted, claim)[:2] == ("held", "held")
    reproduces, pays, found = said(seeds_of(rising(0.4), flops=3e9), drifted, claim)
    assert (reproduces, pays) == ("held", "no test")
    assert "whose steps are right: 50" in found["flops"]["why"]


def test_where_less_is_to_be_lost_the_base_must_lose():
    claim = but(gates={"loses": 5})
    assert said(seeds_of(rising(0.1)), claim=claim)[0] == "no test"
    fallen = [
        *seeds_of(rising(-0.1), 1, 100, updates=180, start=True),
        *seeds_of(rising(-0.1), 4, 101, updates=180),
    ]
    assert said(seeds_of(rising(0.0)), fallen, claim)[0] == "held"


def test_tasks_without_steps_have_none_to_be_right():
    base, arm = base_runs(steps_right=None), seeds_of(rising(0.3), steps_right=None)
    assert said(arm, base)[0] == "held"


def test_a_method_that_lives_on_feedback_needs_a_model_that_reads_it():
    claim, arm = but(gates={"feedback_chat": 15}), seeds_of(rising(0.3))
    assert said(arm, claim=claim, able={"feedback_chat": 20.0})[0] == "held"
    assert said(arm, claim=claim, able={"feedback_chat": 9.0})[0] == "no test"
    assert "not measured" in said(arm, claim=claim)[2]["updates"]["why"]


def test_a_methods_own_manipulation_check():
    """GSPO's file asks for tokens that are clipped."""
    claim, base = but(recipe="gspo", arm="gspo"), base_runs()
    for share, wanted in ((0.2, "held"), (0.0, "no test")):
        arm = seeds_of(rising(0.3), columns={"clip": share})
        assert said(arm, base, claim)[0] == wanted
    assert "not measured" in said(seeds_of(rising(0.3)), base, claim)[2]["updates"]["why"]
    (shut,) = [g for g in gates(claim, seeds_of(EQUAL), base, {}) if g.name == "manipulation"]
    assert not shut.passed


def test_every_method_says_what_must_happen_or_why_nothing_need():
    for claim in load():
        recipe = catalogue()[claim.recipe]
        assert claim.untested or bool(recipe.manipulation) != bool(recipe.unchecked), claim.recipe


def test_readings_of_a_check():
    run = {
        "columns": {
            "curriculum.a/0": [0.2, 0.5, 0.9],
            "curriculum.b/1": [0.8, 0.5, 0.4],
            "kl": [None, 2.0, None],
        }
    }
    moved = Manipulated("moved", r"curriculum\.[^ ]+", 0.1, read="range")
    assert reading(moved, run, 3) == pytest.approx(0.7)
    assert reading(moved, run, 2) == pytest.approx(0.3), "until N"
    assert reading(Manipulated("", "kl", 0.1), run, 3) == 2.0
    assert reading(Manipulated("", "unknown", 0.1), run, 3) is None
    with pytest.raises(TypeError, match="no bound"):
        Manipulated("nothing", "kl")
    with pytest.raises(TypeError, match="read is 'median'"):
        Manipulated("nothing", "kl", 1.0, read="median")


def test_a_composition_is_checked_for_all_of_its_parts():
    from etude.methods import find

    assert find("gspo+sec").manipulation == catalogue()["gspo"].manipulation + catalogue()["sec"].manipulation
    assert find("gspo+sec").manipulation


# ---- other metrics -----------------------------------------------------------------------------------------------------


def twice(first, last):
    return {"twice": [[str(i), first, last, 8] for i in range(50)]}


def test_a_gain_counts_only_where_the_end_is_not_lower():
    """SCoRe's: the gain is larger since first attempts are worse; after both the ablation has solved more."""
    claim = but(metric="gain", guard="last", gates={})
    base = base_runs(**twice(4, 4))
    assert said(seeds_of(EQUAL, **twice(1, 3)), base, claim)[0] == "not held"
    assert said(seeds_of(EQUAL, **twice(2, 5)), base, claim)[0] == "held"


def test_lengths_fall_in_tokens():
    claim = but(metric="length", better="lower", least=1.0, guard="accuracy", gates={})
    arm = [
        {**r, "curve": [{**p, "length": 17.0 + 0.1 * i} for p in r["curve"]]}
        for i, r in enumerate(seeds_of(EQUAL))
    ]
    reproduces, _, found = said(arm, claim=claim)
    assert (reproduces, found["updates"]["effect"]) == ("held", pytest.approx(-2.8))
    assert found["updates"]["guard"]["low"] < 0 < found["updates"]["guard"]["high"]


def test_a_metric_that_was_not_measured_is_no_test():
    found = judged(but(metric="elsewhere", gates={}), seeds_of(EQUAL, elsewhere=[]), base_runs(elsewhere=[]))
    assert found["updates"]["label"] == "no test"


# ---- settings and pages --------------------------------------------------------------------------------------------------


def test_settings_can_be_built_and_name_every_recipe():
    known = load()
    for claim in known:
        assert claim.recipe in catalogue(), claim.recipe
        assert bool(claim.untested) != bool(claim.arm and claim.base)
        for arm in (claim.arm, claim.base) if claim.arm else ():
            resolve(claim.plan(arm, 0))
        if claim.arm:
            assert name_of(claim, claim.arm) != name_of(claim, claim.base), claim.recipe
    trained = {name for name, recipe in catalogue().items() if recipe.topic not in UNTRAINED}
    assert {c.recipe for c in known if c.on == "lab"} == trained, "a claim, or why there is none"


def test_equal_plans_share_their_runs(tmp_path):
    a, b = but(arm="rloo"), but(arm="dr_grpo")
    assert name_of(a, "grpo") == name_of(b, "grpo")
    assert name_of(a, "grpo") != name_of(but(metric="gain"), "grpo"), "it is examined in another way"
    assert len(jobs_of(tmp_path, [a, b])) == 3 * 5
    more = jobs_of(tmp_path, [a], more=True)
    assert [(j.arm, j.seed) for j in more] == [(arm, seed) for arm in ("grpo", "rloo") for seed in range(8)]
    plans = {arm: a.plan(arm, 0) for arm in ("grpo", "rloo")}
    assert (plans["grpo"].budget.amount, plans["rloo"].budget.amount) == (180, 60)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lab.claim.x]\nsays = 'a'\nmetrik = 'b'", "no setting 'metrik'; did you mean 'metric'"),
        ("[lab.claim.x]\narm = 'a'", "lacks says"),
        ("[lab.claim.x]\nsays = 'a'", "lacks model, tasks, updates, arm, base"),
        ("[lab.claim.x]\nsays = 'a'\nmetric = 'accurracy'", "no metric 'accurracy'; did you mean 'accuracy'"),
        ("[lab.claim.x]\nsays = 'a'\ngates = {gian = 1}", "no gate 'gian'; did you mean 'gain'"),
        ("lab = 3", "'lab' stands outside a bed"),
        ("[lab", "cannot be read as claims"),
    ],
)
def test_settings_that_cannot_be_used(tmp_path, text, message):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UserError, match=message.replace("?", ".")):
        load(file)


def test_a_method_without_a_claim_gets_the_beds(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\nfrom etude.methods.policy_gradient.rloo import RECIPE as R\n"
        "RECIPE = replace(R, name='mine', claim='Mine ends above.')\n"
    )
    claim = of_recipe(str(tmp_path / "mine.py"), "lab", "grpo")
    assert (claim.recipe, claim.base, claim.says) == ("mine", "grpo", "Mine ends above.")
    assert (claim.updates > 0, claim.gates["gain"]) == (True, 10)
    resolve(claim.plan(claim.arm, 0))
    with pytest.raises(UserError, match="no bed 'lob'"):
        of_recipe("rloo", "lob", "grpo")


def test_results_are_of_the_settings_as_they_stand():
    """Settings that were changed after the run void its result."""
    digests = {(c.recipe, c.on): c.digest for c in load()}
    for recipe, both in read().items():
        for on, found in both.items():
            assert found["settings"] == digests[recipe, on], f"{recipe} on {on}: run etude claims again"
            assert not found.get("trial"), "a trial is not recorded"


def test_pages_are_not_stale():
    for name, text in pages().items():
        assert (ROOT / "docs" / name).read_text() == text, "run: python -m etude.docs.method_docs"
    drawn = {path.name for path in (ROOT / "docs").glob("claims-*.svg")}
    assert drawn <= set(pages()), "a picture of results that are no longer there"


def test_published_learning_rates_stand_beside_the_recipes_own():
    said = "Learning rate: 5e-06 in its paper's settings, 1e-05 here (update.lr)"
    assert said in one(facts("hpt")[0]).splitlines()
    assert "Learning rate" not in one(facts("sft")[0])
    lines = papers_page().splitlines()
    for name, rates in (("hpt", "5e-06"), ("tea_rl", "5e-06, 1e-05"), ("gspo", "-")):
        (line,) = (line for line in lines if f"`{name}`" in line)
        assert line.split(" | ")[4] == rates


def recorded(arm, **changes):
    claim = but(**changes)
    about = {
        n: getattr(claim, n) for n in ("on", "says", "arm", "base", "metric", "better", "least", "updates")
    }
    return {
        **about,
        "state": "run",
        "command": f"etude claims {claim.recipe}",
        **judged(claim, arm, base_runs()),
    }


def test_the_page_says_what_shows_what_pays_and_what_could_not_be_tested():
    flat = recorded(seeds_of(rising(0.3), columns={"signal": 0.1}), gates={"gain": 50})
    results = {
        "rloo": {"lab": recorded(seeds_of(rising(0.3)))},
        "dr_grpo": {"lab": recorded(seeds_of(EQUAL), says="Equal.")},
        "gspo": {"lab": flat},
        "ditto": {"lab": {"state": "untested", "says": "Loops.", "why": "it does not loop", "on": "lab"}},
    }
    page = claims_page(results, [CLAIM, but(recipe="sec")])
    assert "; updates: 60." in page
    assert "- **reproduces?** held: rloo; not held: dr_grpo." in page
    assert "- **Could not be tested:** gspo, ditto." in page
    assert "| gspo | It ends above. | points that the base gains: 1" in page
    assert "it does not loop" in page
    assert "Not yet run on this bed: sec." in page
    assert "`etude claims rloo`" in page
    assert labels(results["rloo"]["lab"]) == "held / held"
    assert labels(flat) == "no test"
    drawn = picture({n: r["lab"] for n, r in results.items()})
    assert drawn.index(">rloo<") < drawn.index(">dr_grpo<")
    assert "gspo" not in drawn
    assert claims_page({}, []).count("Not yet run on this bed.") == 2
