"""Groups whose policy says what it is told, and runs that are compared with other runs."""

import asyncio

import pytest

import toys
import worlds_of_letters as letters
from etude import seeds
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.rollout.group_rollout import GroupRollout
from etude.train.loop import train
from etude.train.reopen import resume
from etude.train.setup import start
from etude.types import Message, Request, Verdict
from test_resume import facts, same_weights

SMALL = {"run__eval_problems": 0, "run__tasks_per_step": 4, "run__group_size": 4}


def seven(answer: str) -> Verdict:
    """Right iff the answer ends with a 7; an answer that begins with x cannot be judged."""
    if answer.strip().startswith("x"):
        raise ValueError("no")
    right = answer.strip().endswith("7")
    return Verdict(float(right), right)


def scripted_group(
    name, replies, settings=None, samples=4, task=None, request=None, progress=0.5, key=None, **more
):
    """One group of a recipe whose policy says `replies`, in order: (group, signals, sampler, stages)."""
    _, stages = build(find(name), settings or {})
    sampler = toys.ScriptedSampler(replies=list(replies))
    rollouts = GroupRollout(
        task or toys.task(check=seven),
        request or Request(),
        samples,
        toys.generator(sampler.policy, sampler),
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        seeds.key("toy") if key is None else key,
        progress=progress,
        **more,
    )
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    signals = stages["credit"]([group], toys.context(sampler.policy))
    return group, signals, sampler, stages


def decode(tokens) -> str:
    return toys.tokenizer().decode(tokens)


def prompt(text: str) -> str:
    return decode(toys.TablePolicy().renderer.prompt([Message("user", text)]))


def advantages(signals) -> list[float]:
    return [round(float(s.advantage[s.episode.sampled][0]), 4) for s in signals]


def trained_rows(signals) -> list[str]:
    """Every sequence as training sees it."""
    batch = pack(signals)
    return [decode(batch.tokens[batch.sequence == i].tolist()) for i in range(batch.sequences)]


def same_run(tmp_path, one: str, other: str, changes: dict, others: dict, tasks=letters.words) -> None:
    """Two recipes with these settings make the same run, bit for bit."""
    for place, name, more in (("one", one, changes), ("other", other, others)):
        run = start(letters.plan(tmp_path, name, 3, **SMALL, **more), tmp_path / place, tasks())
        train(run)
        run.close()
    assert facts(tmp_path / "one")[1] == facts(tmp_path / "other")[1]
    assert same_weights(tmp_path / "one", tmp_path / "other")


def stopped_and_resumed(tmp_path, name: str, **changes):
    """Stopped after three steps and resumed from two, a run is the one that was not stopped; returns the last."""
    more = {**SMALL, "run__checkpoint_every": 2, **changes}

    def stop(step: int, metrics: dict) -> None:
        if step == 3:
            raise KeyboardInterrupt

    whole = start(letters.plan(tmp_path, name, 4, **more), tmp_path / "whole", letters.words())
    train(whole)
    whole.close()
    half = start(letters.plan(tmp_path, name, 4, **more), tmp_path / "half", letters.words())
    half.on_step = stop
    with pytest.raises(KeyboardInterrupt):
        train(half)
    half.close()
    again, _ = resume(tmp_path / "half", letters.words())
    train(again)
    again.close()
    assert facts(tmp_path / "whole") == facts(tmp_path / "half")
    assert same_weights(tmp_path / "whole", tmp_path / "half")
    return again
