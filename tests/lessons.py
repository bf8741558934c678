"""Lessons for the tests of single methods: the groups that a recipe gathers from an exact policy or a scripted one, its
credit's context with trained auxiliary models, and the shared laws in another setting than the default."""

import asyncio

import numpy as np
import torch
import torch.nn.functional as F

import toys
from etude import seeds
from etude.assembly import build
from etude.methods import find
from etude.rollout.group_rollout import GroupRollout
from etude.testing import laws
from etude.train.step import Learner, Update
from etude.types import Episode, Group, Request, Task, Verdict


def never(answer: str) -> Verdict:
    return Verdict(0.0, False)


def right_if(*answers: str):
    return lambda text: Verdict(float(text in answers), text in answers)


def groups_of(name: str, settings: dict | None = None, tasks=None, samples: int = 4, policy=None):
    """The recipe's stages, and the groups that they gather from a table policy."""
    _, stages = build(find(name), settings or {})
    policy = policy or toys.TablePolicy(0, dict(stages["objective"].heads))
    return stages, policy, toys.play(stages, policy, tasks or [toys.task(i) for i in range(4)], samples)


def rollouts(
    stages, policy, sampler=None, samples: int = 4, progress: float = 0.0, purpose: str = ""
) -> GroupRollout:
    speaker = toys.generator(policy, sampler)
    request, key = Request(purpose=purpose), seeds.key("toy", 0)
    parts = (stages["rollout"], stages["reward"], key, progress)
    return GroupRollout(toys.task(), request, samples, speaker, toys.check_runner, *parts)


def setting(name: str, settings: dict | None = None, lr: float = 1e-3, **stages):
    """A recipe's stages, its context with trained auxiliary models (copies of the policy), and the groups that it samples."""
    recipe, built = build(find(name), settings or {})
    built |= stages
    policy = toys.TablePolicy(0, dict(built["objective"].heads))
    where = toys.context(policy)
    for other, model in recipe.all_auxiliary.items():
        if model.source == "copy":
            copy = toys.TablePolicy(0, dict(model.heads))
            where.auxiliary[other] = Learner(copy, Update(lr=lr, head_lr=lr, max_norm=0), other)
    return built, where, toys.play(built, policy, [toys.task(i) for i in range(4)])


def trained(episode: Episode, row: np.ndarray) -> np.ndarray:
    return row[episode.sampled]


def scripted(stages, replies: list[str], task: Task | None = None, samples: int = 1) -> tuple[Group, object]:
    """The group where the sampler says `replies` in order, and the sampler."""
    sampler = toys.ScriptedSampler(replies=list(replies))
    speaker = toys.generator(sampler.policy, sampler, max_tokens=64)
    parts = (stages["rollout"], stages["reward"], seeds.key("toy"))
    rollouts = GroupRollout(task or toys.task(), Request(), samples, speaker, toys.check_runner, *parts)
    return asyncio.run(rollouts.group(stages["group_rollout"])), sampler


def same(mine: torch.Tensor, theirs: torch.Tensor) -> bool:
    """Equal gradients, where one policy may have heads (which come last) that the other lacks."""
    size = max(len(mine), len(theirs))
    a, b = (F.pad(g, (0, size - len(g))) for g in (mine, theirs))
    return laws.close(a, b) and not laws.close(-a, b)


def laws_hold(name: str, settings: dict) -> None:
    """The shared laws for a recipe in another setting than its default."""
    for law in laws.STEP_LAWS:
        law(build(find(name), settings)[0])
