"""A recipe played on a table policy, and its loss written out again token by token, by plain autograd."""

import asyncio

import torch

import toys
from etude import seeds
from etude.assembly import build
from etude.batch import pack
from etude.methods import find
from etude.recipe import AuxiliaryModel
from etude.rollout.group_rollout import GroupRollout
from etude.train.step import Learner, Update
from etude.types import Request


def prepared(name: str, settings: dict | None = None, drift: float = 0.0, tasks=None, samples: int = 4):
    """A lesson as `toys.lesson` makes it, with the auxiliary models and generators that the recipe asks for."""
    recipe, stages = build(find(name), settings or {})
    policy = toys.TablePolicy(0, dict(stages["objective"].heads))
    where = toys.context(policy)
    where.auxiliary |= {n: trained(c) for n, c in recipe.all_auxiliary.items() if c.source == "copy"}
    groups = asyncio.run(played(stages, where, tasks or [toys.task(i) for i in range(4)], samples))
    signals = where.completed(
        stages["credit"](stages["filter"](groups, where), where), stages["objective"].reads
    )
    moved(policy, drift)
    return toys.Lesson(stages, where, signals), groups


def trained(model: AuxiliaryModel) -> Learner:
    copy = toys.TablePolicy(0, dict(model.heads))
    return Learner(copy, Update(lr=model.lr), micro_tokens=1 << 20)


async def played(stages, where, tasks, samples: int):
    generators = {n: toys.generator(p) for n, p in where.auxiliary.items() if isinstance(p, toys.TablePolicy)}
    speaker = toys.generator(where.policy)
    parts = (toys.check_runner, stages["rollout"], stages["reward"])
    group_rollouts = [
        GroupRollout(t, Request(), samples, speaker, *parts, seeds.key("toy", i), generators=generators)
        for i, t in enumerate(tasks)
    ]
    return await asyncio.gather(*(rollouts.group(stages["group_rollout"]) for rollouts in group_rollouts))


@torch.no_grad()
def moved(policy: toys.TablePolicy, drift: float) -> None:
    for name, parameter in policy.parameters():
        noise = torch.randn(
            parameter.shape, generator=seeds.torch_generator("drift", name), dtype=torch.float64
        )
        parameter += drift * noise


def autograd(lesson, loss) -> torch.Tensor:
    """The gradient of `loss(outputs, batch)`, a whole loss, by plain autograd."""
    batch = pack(lesson.signals)
    parameters = [p for _, p in lesson.policy.parameters()]
    total = loss(lesson.policy.outputs(batch, lesson.objective.needs), batch)
    found = torch.autograd.grad(total, parameters, allow_unused=True)
    return torch.cat(
        [torch.zeros(p.numel()) if g is None else g.flatten() for g, p in zip(found, parameters, strict=True)]
    )


def answers(batch):
    """The token positions of every episode that the policy sampled."""
    return [((batch.episode == i) & batch.sampled).nonzero()[:, 0] for i in range(int(batch.episode[-1]) + 1)]


def parallel(a: torch.Tensor, b: torch.Tensor) -> bool:
    return float(a @ b / (a.norm() * b.norm())) > 1 - 1e-9
