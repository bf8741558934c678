"""Games: rules, scripted players, and what is known of their best play."""

from __future__ import annotations

import numpy as np
import pytest

from etude import tasks
from etude.tasks import kuhn_poker as kuhn
from etude.tasks import tic_tac_toe as ttt
from etude.tasks.game import Table, said, scripted


def test_kuhn() -> None:
    assert kuhn.value(kuhn.equilibrium()) == pytest.approx(-1 / 18)
