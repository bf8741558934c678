"""Text2Grad: quotations laid on tokens, and what they are worth."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import toys
from etude.credit.group import constant
from etude.methods.process_credit.prime import to_go
from etude.methods.process_credit.text2grad import against_reference, read_critique, token_marks
from lessons import scripted, setting


def test_quotations_are_laid_on_the_words_of_their_tokens() -> None:
    known = toys.tokenizer()
    text = "so 3+4 is 8, yes"
    tokens = np.append(known.encode(text), known.stops[0])

    def marks(good, poor, threshold=0.7):
        found = token_marks(known, tokens, good, poor, threshold)
        return "".join({1: "+", -1: "-", 0: "."}[int(m)] for m in found)

    assert marks(["so 3+4"], []) == "++.+.+..........."
    assert marks([], ["is 8,"]) == ".......--.-......", "punctuation is not marked"
    assert marks(["so 3+4 is 8"], ["8"]) == "++.+.+.++.-......", "poor wins"
    assert marks(["so 3-4"], []) == "++.+.+...........", "a slip of the pen"
    assert marks(["nothing like it"], [""]) == "................."
    assert marks(["so 3-4"], [], 1.0) == "................."


def test_critics() -> None:
    task = toys.task(reference="one\ntwo\nthree")
    assert against_reference(task, "one\ntwo\nfour\nthree", "\n") == (["one", "two"], ["four"])
    assert against_reference(task, " three \n", "\n") == (["three"], [])
    assert read_critique('Well: {"good_spans": ["a", 3], "poor_spans": ["b"]}.') == (["a"], ["b"])
    for broken in ("no", '{"good_spans": ["a"', '{"good_spans": 3}', "[1]", "}{"):
        assert read_critique(broken) == ([], [])


def test_the_reference_marks_the_first_line_that_departs() -> None:
    stages, *_ = setting("text2grad")
    group, _ = scripted(stages, ["ab\nxy\ncd"], toys.task(reference="ab\ncd"))
    (episode,) = group.episodes
    assert np.array(episode.notes["marks"])[episode.sampled].tolist() == [1, 1, 0, -1, -1, 0, 0, 0, 0]


def test_a_model_may_be_the_critic() -> None:
    stages, *_ = setting("text2grad", {"group_rollout.marked_by": "model"})
    group, sampler = scripted(stages, ["ab cd", '"good_spans": ["ab"], "poor_spans": ["cd"]'])
    assert sum(map(abs, group.episodes[0].notes["marks"])) == 0, (
        "the toy vocabulary has no braces to write JSON with"
    )
    asked = toys.tokenizer().decode(sampler.asked[1])
    assert "Response:\nab cd" in asked
    assert [s.tag for s in group.episodes[0].spans] == ["prompt", "attempt"]


def text2grad(marks, **settings):
    plain = {"credit.lam": 1, "credit.kl_weight": 0.0, **settings}
    stages, where, groups = setting("text2grad", plain)
    with torch.no_grad():
        where.policy.heads["value"].zero_()
    marked = [
        replace(g, episodes=tuple(replace(e, notes={"marks": marks(e)}) for e in g.episodes)) for g in groups
    ]
    return [s.extras["returns"][s.episode.sampled] for s in stages["credit"](marked, where)], groups


def test_marks_are_rewards() -> None:
    found, _ = text2grad(lambda e: np.where(e.sampled, -1, 0).tolist())
    assert all(r.tolist() == list(range(-len(r), 0)) for r in found), "all tokens poor"
    found, groups = text2grad(lambda e: np.eye(len(e.tokens), dtype=int)[-1].tolist())
    assert all(np.allclose(r, 1.0) for r in found), "a mark on the last token is an outcome"
    found, groups = text2grad(lambda e: [0] * len(e.tokens), **{"credit.kl_weight": 0.5})
    _, where, _ = setting("text2grad")
    for r, e in zip(found, (e for g in groups for e in g.episodes), strict=True):
        reference = where.rows([constant(e, 0.0)], lambda out: out.logp, policy=where.auxiliary["reference"])[
            0
        ]
        away = (e.logp - reference)[e.sampled]
        assert np.allclose(r, -0.5 * to_go(away), atol=1e-4), "no marks: only the pull to the start"


def test_beta_follows_the_divergence() -> None:
    stages, where, groups = setting("text2grad", {"credit.kl_target": 0.001, "credit.kl_horizon": 16})
    credit = stages["credit"]
    credit(groups, where)
    assert credit.beta == pytest.approx(0.05 * 1.2), "far above its target, over one horizon"
    credit.load_state_dict({"beta": 0.3})
    assert credit.state_dict() == {"beta": 0.3} == credit.report()
