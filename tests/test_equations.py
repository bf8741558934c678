"""Equations of the recipes as formulas: nothing is lost, and what is mathematics does not look like prose."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from etude.docs.equations import GREEK, clauses, latex, mathml
from etude.methods import catalogue

MATHS = "{http://www.w3.org/1998/Math/MathML}"
LETTERS = {  # what MathML shows for the words of an equation
    **dict(zip(GREEK, "αβγδϵζηθικλμνξπρστϕχψωΓΔΘΛΣΦΨΩ", strict=True)),
    **{"grad": "∇", "sum": "∑", "prod": "∏"},
}


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("rho_t = pi(y_t | x, y_<t)", r"\rho _{t} = \pi (y_{t} | x, y_{\lt t})"),
        ("L = - mean_t log pi(y*_t)", r"L = - \operatorname{mean}_{t} \log  \pi (y^{*}_{t})"),
        ("mu <- a (H* - H)", r"\mu  \leftarrow  a (H^{*} - H)"),
        ("r_i - mean_{j != i} r_j", r"r_{i} - \operatorname{mean}_{j \neq  i} r_{j}"),
        ("pi^(1/kappa)", r"\pi ^{1/\kappa}"),
        ("1e-4 over tokens of a reply", r"1 \cdot 10^{-4} \text{ over tokens of a reply}"),
        ("R = 1 if a_j = y else b", r"R = 1 \text{ if }a_{j} = y \text{ else }b"),
        ("pi_old, L_SFT, y_it", r"\pi _{\text{old}}, L_{\text{SFT}}, y_{it}"),
        ("log teacher(y)", r"\log  \operatorname{teacher}(y)"),
        ("PPO's clip on-policy", r"\mathrm{PPO}\text{'s }\operatorname{clip} \text{ on-policy}"),
        ("R in {1, 0}", r"R \text{ in }\{1, 0\}"),
    ],
)
def test_how_it_is_written(written: str, shown: str) -> None:
    assert latex(written) == shown


def test_each_clause_is_a_line() -> None:
    assert clauses("A = f(p; 1),  b = 2, c;  L = {a; b}") == ["A = f(p; 1)", "b = 2, c", "L = {a; b}"]


@pytest.mark.parametrize("name", sorted(n for n, r in catalogue().items() if r.equation))
def test_nothing_of_an_equation_is_lost(name: str) -> None:
    equation = catalogue()[name].equation
    block = ElementTree.fromstring(mathml(equation))
    formulas = block.findall(f"{MATHS}math")
    assert len(formulas) == len(clauses(equation))
    whole = "".join(block.itertext()).replace("𝔼", "E")
    seen = re.sub(r"\W|[_∑∇]", "", whole)
    words = [
        LETTERS.get(word, word)
        for word in re.findall(r"[^\W\d_]+|\d", re.sub(r"(\d)e-", r"\1 10 ", equation))
    ]
    assert seen == re.sub(r"\W|[_∑∇∏]", "", "".join(words))
    assert "\\" not in "".join(block.itertext())
