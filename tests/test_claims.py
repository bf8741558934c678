"""Claims: outcomes by the rule, settings that can be built, pages that are not stale."""

import sys
from pathlib import Path

import numpy as np
import pytest

from etude.docs.claims import read, sentence
from etude.docs.method_docs import claims_page, pages, picture
from etude.docs.method_page import facts, one
from etude.docs.papers import papers_page
from etude.methods import catalogue
from etude.train.setup import resolve

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "bench"))
claims = pytest.importorskip("claims")

BASE = claims.Claim("topr", "lab", "says", "lab", "lab", "1-steps", 5, {}, "topr", "rft", least=2.0)


def but(**changes):
    from dataclasses import replace

    return replace(BASE, **changes)


@pytest.mark.parametrize(
    ("low", "effect", "high", "state"),
    [
        (1.0, 4.0, 7.0, "held"),
        (0.1, 1.0, 1.9, "not held"),  # certain, and too small to count
        (0.1, 1.5, 2.9, "not resolved"),
        (-1.0, 4.0, 9.0, "not resolved"),
        (-5.0, -1.0, 1.9, "not held"),
        (-9.0, -4.0, -1.0, "not held"),
    ],
)
def test_outcomes(low, effect, high, state):
    found = {"effect": effect, "low": low, "high": high}
    assert claims.outcome(BASE, found, None) == state
    turned = {"effect": -effect, "low": -high, "high": -low}
    assert claims.outcome(but(better="lower"), turned, None) == state


def test_a_guard_that_is_broken_or_in_doubt():
    good = {"effect": 4.0, "low": 1.0, "high": 7.0}
    for low, high, state in ((-2, 1, "held"), (-4, 1, "not resolved"), (-9, -4, "not held")):
        assert claims.outcome(but(guard=3.0), good, {"effect": 0, "low": low, "high": high}) == state


def runs(shift=0.0):
    rng = np.random.default_rng(0)
    return [
        {
            "per_problem": [[str(i), int(rng.integers(0, 5) + 4 * shift), 8] for i in range(30)],
            "length": 10.0 + s + 5 * shift,
        }
        for s in range(5)
    ]


def test_differences():
    arm, base = runs(1.0), runs(0.0)
    found = claims.difference("accuracy", arm, base)
    assert found["effect"] == pytest.approx(50.0)  # 4 of 8 attempts
    assert found["low"] < 50 < found["high"]
    assert claims.difference("length", arm, base)["effect"] == pytest.approx(5.0)
    # Welch by hand: both samples 10..14 (+5), variance 2.5, standard error 1, 8 degrees: t = 2.306
    assert claims.difference("length", arm, base)["high"] == pytest.approx(5 + 2.306, abs=1e-3)
    # 0, 0, 0, 0, 10 against 2: variance 20 / 5 seeds = 4, no variance on the other side: 4 degrees, t = 2.776
    uneven = [{"length": v} for v in (0.0, 0.0, 0.0, 0.0, 10.0)]
    found = claims.difference("length", uneven, [{"length": 2.0 + 1e-9 * i} for i in range(5)])
    assert found["high"] == pytest.approx(2.776 * 2, abs=1e-3)
    assert claims.difference("pass@8", base, base)["effect"] == 0


def test_settings_can_be_built_and_name_every_recipe_of_the_families():
    known = claims.load()
    for claim in known:
        assert claim.recipe in catalogue()
        assert bool(claim.untested) != bool(claim.arm and claim.base)
        for arm in (claim.arm, claim.base) if claim.arm else ():
            resolve(claim.plan(arm, 0))
        if claim.arm:
            assert claims.name_of(claim.plan(claim.arm, 0)) != claims.name_of(claim.plan(claim.base, 0))
    named = {c.recipe for c in known if c.on == "lab"}
    wanted = {name for name, recipe in catalogue().items() if recipe.claim}
    assert named >= wanted, "every published method with a claim has settings for it, or says why not"


def test_equal_plans_share_their_runs():
    a, b = claims.load()[0], claims.load()[1]
    assert claims.name_of(a.plan("grpo", 0)) == claims.name_of(b.plan("grpo", 1))
    assert claims.name_of(a.plan("grpo", 0)) != claims.name_of(a.plan("rloo", 0))


def test_results_are_of_the_settings_as_they_stand():
    """Settings that were changed after the run void its result."""
    digests = {(c.recipe, c.on): c.digest for c in claims.load()}
    for recipe, both in read().items():
        for on, found in both.items():
            assert found["settings"] == digests[recipe, on], f"{recipe} on {on}: run bench/claims.py again"


def test_pages_are_not_stale():
    for name, text in pages().items():
        assert (ROOT / "docs" / name).read_text() == text, "run: python -m etude.docs.method_docs"


def test_published_learning_rates_stand_beside_the_recipes_own():
    said = "Learning rate: 5e-06 in its paper's settings, 1e-05 here (update.lr)"
    assert said in one(facts("hpt")[0]).splitlines()
    assert "Learning rate" not in one(facts("sft")[0])
    lines = papers_page().splitlines()
    for name, rates in (("hpt", "5e-06"), ("tea_rl", "5e-06, 1e-05"), ("gspo", "-")):
        (line,) = (line for line in lines if f"`{name}`" in line)
        assert line.split(" | ")[4] == rates


def test_a_page_says_what_was_found_and_what_was_not():
    found = {
        "state": "held",
        "effect": 4.0,
        "interval": [1.0, 7.0],
        "metric": "accuracy",
        "says": "It helps.",
        "base": "rft",
        "seeds": 5,
    }
    other = {**found, "state": "not held", "effect": -2.0, "interval": [-6.0, 1.0]}
    assert sentence(found) == "held: +4.0 [+1.0, +7.0] points"
    assert sentence(other) == "not held: -2.0 [-6.0, +1.0] points"
    assert sentence({**found, "metric": "entropy"}) == "held: +4.000 [+1.000, +7.000] nats/token"
    guarded = {**found, "state": "not held", "guard": {"effect": -5.0, "low": -7.0, "high": -3.0}}
    assert sentence(guarded) == "not held: +4.0 [+1.0, +7.0] points; accuracy -5.0 [-7.0, -3.0]"
    page = claims_page({"topr": {"lab": found}, "nft": {"lab": other}})
    assert "1 held (topr); 1 not held (nft); 0 not resolved." in page
    assert "claims-lab.svg" in page
    assert "claims-lab.svg" not in claims_page({})
    assert claims_page({}).count("Not run.") == 2
    drawn = picture({"topr": found, "nft": other})
    assert drawn.index(">topr<") < drawn.index(">nft<")
    # the scale runs from -6 to 7 over 520 units from 170: topr's 4 lies at 170 + 520 * 10 / 13
    assert f'cx="{170 + 520 * 10 / 13:.1f}"' in drawn


def test_two_attempts_are_summed_up_and_drawn_as_a_table():
    """Two seeds, two problems of four attempts: first right 4 + 0 and 2 + 2 of 8, last 4 + 2 and 4 + 2."""

    def run(rows, ways):
        shares = {"first": 0.5, "second": 0.75, **dict(zip(claims.WAYS, ways, strict=True))}
        return {"twice": {**shares, "tokens": 20.0, "per_problem": rows}}

    runs = [
        run([["a", 4, 4, 4], ["b", 0, 2, 4]], (0.5, 0.0, 0.25, 0.25)),
        run([["a", 2, 4, 4], ["b", 2, 2, 4]], (0.5, 0.0, 0.25, 0.25)),
    ]
    found = claims.two_attempts(runs)
    assert found["gain"] == pytest.approx(100 * (6 / 8 - 4 / 8))
    assert found["interval"][0] < found["gain"] < found["interval"][1]
    assert (found["first"], found["second"], found["wrong_right"]) == (50.0, 75.0, 25.0)
    assert (found["problems"], found["samples"], found["tokens"]) == (2, 4, 20.0)
    told = {"state": "held", "says": "", "arm": "erl", "base": "grpo", "seeds": 2, "twice": {"arm": found}}
    page = claims_page({"erl": {"lab": told}})
    assert "| erl | lab | erl | 50.0 | 75.0 | +25.0 [" in page
    assert "| 50.0 | 0.0 | 25.0 | 25.0 | 20 | 2 x 4 x 2 |" in page
    assert "First and second attempts" not in claims_page({"erl": {"lab": {**told, "twice": {}}}})


def test_repetition_counts_four_grams_that_were_there_before():
    repetition = claims.repetition
    assert repetition.repeated([1, 2, 3, 4, 5, 6]) == 0
    assert repetition.repeated([1, 2, 3]) == 0
    # 1 2 1 2 1 2 1 2: five 4-grams, two different ones
    assert repetition.repeated([1, 2] * 4) == pytest.approx(3 / 5)


def test_no_sentence_of_the_running_text_stands_in_two_passages():
    """Some topics contain others, so passages that differ may share what is examined and what is trained on."""
    found = claims.repetition.passages()
    assert len(found) > 100
    told = [set(claims.repetition.sentences(" ".join(passage))) for passage in found]
    assert sum(map(len, told)) == len(set().union(*told))


def test_the_prose_takes_its_figures_from_the_results():
    from etude.docs.method_docs import learned

    found = {"rec": {"lab": {"effect": 4.0, "interval": [1.0, 7.0]}}}
    said = learned(found)
    assert "clipping on one side gains +4.0 [+1.0, +7.0]" in said
    assert "(not run)" in said, "what has no result says so"
    assert "(not run)" not in learned(read()), "learned.md names a claim that has no result"
