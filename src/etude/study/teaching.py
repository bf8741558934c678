"""Starting models that a study makes itself: a model that has read some texts once more, questions included."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from etude import seeds
from etude.credit.imitate import imitate
from etude.models.policy import Policy
from etude.objective.imitation import cross_entropy
from etude.rollout.demonstrate import solution
from etude.train.step import Learner
from etude.types import Task
from etude.update import Update


def read_whole(
    policy: Policy, tasks: Sequence[Task], steps: int, batch: int, lr: float, seed: int = 0
) -> None:
    """Continued pre-training on questions with their solutions: cross-entropy on every token but the first, AdamW, a constant
    rate after a tenth of the steps. Epochs are keyed permutations."""
    learner = Learner(policy, Update(lr=lr, warmup=max(1, steps // 10)), "reading", seed)
    objective = cross_entropy()
    texts = [solution(task, policy.renderer) for task in tasks]
    signals = [imitate(e, np.arange(len(e.tokens)) > 0) for e in texts]
    order: list[int] = []
    for step in range(steps):
        while len(order) < batch:
            epoch = seeds.generator(seed, "reading", step, len(order)).permutation(len(signals))
            order += epoch.tolist()
        now, order = order[:batch], order[batch:]
        learner.learn(objective, [signals[i] for i in now], step, step / steps)
