"""Whether a model knows the questions that it is examined with: `etude eval --contamination`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from etude import cli
from etude.evaluate.completion import completed, rouge_l
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from etude.rollout.conversation import Generator
from etude.sampling.engine import sampler_for
from etude.study.teaching import read_whole
from etude.tasks.check import Exact
from etude.types import SamplingParams, Task


def test_rouge_l_by_hand() -> None:

    # "1 3 4" is common to both: 2 x 3 / (4 + 5)
    assert rouge_l([1, 2, 3, 4], [1, 3, 9, 4, 8]) == pytest.approx(6 / 9)
    assert rouge_l([1, 2], [2, 1]) == pytest.approx(2 / 4)
    assert rouge_l([], [1]) == 0.0


def test_a_model_that_has_read_the_questions_goes_on_with_them(tmp_path: Path, capsys: Any) -> None:
    """A small model reads four questions until it knows them; the others are of the same letters."""

    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefgh"), 12)) for _ in range(8)]
    tasks = [Task(w, Exact("1"), answer="1") for w in words]  # type: ignore[arg-type]
    place = tiny_directory(
        tmp_path / "model", string.printable, layers=2, width=64, heads=2, kv_heads=1, seed=0
    )
    policy = Policy.load(str(place), precision="fp32")
    read_whole(policy, tasks[:4], steps=60, batch=4, lr=5e-3)
    generator = Generator(sampler_for(policy), policy.renderer, SamplingParams(), limit=policy.context)
    known, unknown = completed(generator, tasks[:4], 0.5), completed(generator, tasks[4:], 0.5)
    assert all(c.exact and c.rouge == 1.0 for c in known)
    assert not any(c.exact for c in unknown)
    assert known[0].said.startswith(words[0][6:])
    policy.save(tmp_path / "read")
    (tmp_path / "q.jsonl").write_text("".join(f'{{"prompt": "{w}", "answer": "1"}}\n' for w in words[:4]))
    assert (
        cli.run(
            [
                "eval",
                str(tmp_path / "read"),
                "-t",
                str(tmp_path / "q.jsonl"),
                "--contamination",
                "--set",
                "run.precision=fp32",
            ]
        )
        == 0
    )
    said = capsys.readouterr().out
    assert "60%    100.0 %" in said
    assert (
        cli.run(
            ["eval", str(place), "-t", str(tmp_path / "q.jsonl"), "--contamination", "--again", "feedback"]
        )
        == 2
    )
