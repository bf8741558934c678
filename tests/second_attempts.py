"""Groups of methods with several attempts, played with scripted replies, and what credit says of their parts."""

import asyncio

import numpy as np

import toys
from etude import seeds
from etude.assembly import build
from etude.methods import find
from etude.rollout.group_rollout import GroupRollout
from etude.types import Message, Request, Verdict


def decode(tokens) -> str:
    return toys.tokenizer().decode(tokens)


def seven(answer: str) -> Verdict:
    right = answer.strip().endswith("7")
    return Verdict(float(right), right, "" if right else "too low")


def play(name, replies, settings=None, samples=1, others=None, task=None, context=None):
    """One group of a recipe whose policy says `replies`, episode after episode: (group, signals, sampler, stages)."""
    recipe, stages = build(find(name), settings or {})
    policy = toys.TablePolicy(0, dict(stages["objective"].heads))
    sampler = toys.ScriptedSampler(policy=policy, replies=list(replies))
    where = context or toys.context(policy, auxiliary=recipe.all_auxiliary)
    generator = toys.generator(policy, sampler)
    rollouts = GroupRollout(
        task or toys.task(check=seven),
        Request(),
        samples,
        generator,
        toys.check_runner,
        stages["rollout"],
        stages["reward"],
        seeds.key("toy"),
        generators=others or {},
    )
    group = asyncio.run(rollouts.group(stages["group_rollout"]))
    assert not group.failed, group.failed[0].failure
    signals = stages["credit"]([group], where)
    return group, signals, sampler, stages


def trained(signal, row="policy") -> list[tuple[str, str, float]]:
    """(tag, text, advantage) of every span of which any token has a weight in `row`."""
    found, start = [], 0
    for span in signal.episode.spans:
        on = signal.weights.get(row, np.zeros(len(signal.advantage)))[start : start + len(span)]
        if on.any():
            assert on.all(), "a part is trained whole"
            mine = signal.advantage[start : start + len(span)]
            found.append((span.tag, decode(span.tokens), round(float(mine[0]), 3)))
        start += len(span)
    return found


def attempt_of(episode) -> np.ndarray:
    """int64[T]: the number of the attempt that each token belongs to as the policy's own word; 0 elsewhere."""
    rows = []
    for span in episode.spans:
        name, _, number = span.tag.partition(" ")
        rows.append(np.full(len(span), int(number) if name == "attempt" and number.isdigit() else 0))
    return np.concatenate(rows)


def plain(text: str = "q0") -> str:
    return decode(toys.TablePolicy().renderer.prompt([Message("user", text)]))
