"""A3T: where the agent fails, actions are tried that it would not have thought of, and it writes the reasons for them afterwards.

A reason that is written for an action, and put before it, makes a turn as the agent itself would have written it (ActRe). What succeeds
so is praised, what failed at the same task is blamed, over all that was gathered so far. ReAct Meets ActRe: When Language Agents Enjoy
Training Data Autonomy, arXiv 2403.14589.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np

from etude import seeds
from etude.fixtures.given import GivenContext, example_answers, given_stage
from etude.fixtures.inference import collected
from etude.fixtures.worlds import spelling
from etude.methods.policy_gradient.reinforce import RECIPE as REINFORCE
from etude.objective.policy import plain
from etude.recipe import ByHand, Manipulated, OffPolicy, Paper, Recipe, Reduction
from etude.rollout import turns
from etude.rollout.attempts import reworded
from etude.rollout.conversation import Conversation
from etude.rollout.expert import MOVE, carried_out, cut_off, opening, put
from etude.rollout.group_rollout import GroupRollout
from etude.rollout.writers import Address, Longest, WhoWrites, Writer
from etude.settings import Setting, stage
from etude.stages import Context
from etude.types import Array, Episode, Group, Message, Signal, Task

EXPLORED = "explored"
"""Note: at how many turns of a trajectory somebody else chose the action."""

REASON = "{question}\n\nWhat was done so far:\n{log}\n\nThe next action is:\n{action}\n\nGive the reason for this action in one sentence."


# ---- group rollout ------------------------------------------------------------------------------------------------------


class Explored:
    """Attempts; where none succeeds and the task is a world that says what can be done, `explorations` more, in which at some turns any
    action is taken and its reason written afterwards."""

    def __init__(
        self,
        explorations: Annotated[int, Setting("explorations of a task that no attempt solved", low=0)] = 4,
        explored_turns: Annotated[
            float, Setting("chance that any action is taken at a turn of these", low=0, high=1)
        ] = 0.5,
        reasons: WhoWrites = "policy",
        address: Address = "",
        longest: Longest = None,
    ) -> None:
        self.explorations, self.share = explorations, explored_turns
        self.writer = Writer(reasons, address, longest)
        self.reads = self.writer.reads

    async def __call__(self, rollouts: GroupRollout) -> list[Episode]:
        tried = await rollouts.plays(range(rollouts.samples))
        if rollouts.task.environment is None or any(e.correct for e in tried):
            return tried
        more = range(rollouts.samples, rollouts.samples + self.explorations)
        return [*tried, *await rollouts.plays(more, self.explore)]

    async def explore(self, task: Task, conversation: Conversation) -> Episode:
        """One exploration. What was put in is not sampled."""
        world = conversation.environment()
        assert world is not None
        log: list[tuple[str, str]] = []
        chosen = 0
        try:
            said: str | None = None
            conversation.user(await opening(task, world))
            while True:
                draw = seeds.generator(conversation.key, "explore", len(log))
                actions = await turns.ask(world, "actions") if draw.random() < self.share else None
                if actions:
                    action = str(actions[int(draw.integers(len(actions)))])
                    text = await self._reasoned(conversation, log, action)
                    put(conversation, text)
                    chosen += 1
                else:
                    text = await conversation.reply(MOVE)
                if cut_off(conversation):
                    break
                said = await carried_out(conversation, world, text)
                if said is None:
                    break
                log.append((text, said))
                conversation.user(said)
        finally:
            await turns.close(world)
        return conversation.done(**{EXPLORED: chosen})

    async def _reasoned(self, conversation: Conversation, log: Sequence[tuple[str, str]], action: str) -> str:
        """The action below the reason for it."""
        task = conversation.task
        done = "\n".join(f"Action: {text}\nWhat came of it: {said}" for text, said in log) or "nothing"
        asked = REASON.format(question=task.prompt[-1].content, log=done, action=action)
        reason = await self.writer.draft(conversation, reworded(task.prompt, asked))
        return f"{' '.join(reason.split())}\n{action}".strip()


# ---- credit: +1 for what succeeded, R_f for what failed at the same task, over all that was gathered ----------------------


class Contrasted:
    """R on all turns of a trajectory, put in or sampled: 1 where it succeeded, `failed_reward` where it failed at a task at which
    another one succeeded; nothing else is kept. Fresh tasks, and as many earlier ones, drawn anew at every step."""

    def __init__(
        self,
        failed_reward: Annotated[float, Setting("R of a trajectory that failed", low=-1, high=0)] = -1.0,
        most_failed: Annotated[
            int, Setting("failed trajectories per task, the first ones; the rest is left out", low=1)
        ] = 1,
        kept_tasks: Annotated[
            int, Setting("tasks whose trajectories are kept, the oldest go", "tasks", low=0)
        ] = 256,
    ) -> None:
        self.failed_reward, self.most_failed, self.kept_tasks = failed_reward, most_failed, kept_tasks
        self.held: dict[str, list[Episode]] = {}
        self.explored = 0.0

    def __call__(self, groups: Sequence[Group], context: Context) -> list[Signal]:
        fresh = {g.task.key: found for g in groups if (found := self._contrast(g))}
        before = [key for key in self.held if key not in fresh]
        draw = context.rng("earlier tasks").permutation(len(before))[: len(fresh)]
        earlier = [self.held[before[i]] for i in sorted(draw)]
        for key, found in fresh.items():
            self.held.pop(key, None)
            self.held[key] = found
        self.held = dict(list(self.held.items())[max(0, len(self.held) - self.kept_tasks) :])
        tried = [e for g in groups for e in g.episodes]
        self.explored = (
            float(np.mean([bool(e.notes.get(EXPLORED)) and e.correct for e in tried])) if tried else 0.0
        )
        chosen = [e for found in (*fresh.values(), *earlier) for e in found]
        signals = [rewarded(e, 1.0 if e.correct else self.failed_reward) for e in chosen]
        return [s for s in signals if s.advantage.any()]

    def _contrast(self, group: Group) -> list[Episode]:
        """The different successes of a group, and some of its failures."""
        right = {own_turns(e).tobytes(): e for e in reversed(group.episodes) if e.correct}
        failed = [e for e in group.episodes if not e.correct][: self.most_failed]
        return [*reversed(right.values()), *failed] if right else []

    def report(self) -> dict[str, float]:
        """`explored`: the share of trajectories that succeeded by exploration; `held`: tasks in the buffer."""
        return {"explored": self.explored, "held": float(len(self.held))}

    def state_dict(self) -> dict[str, Any]:
        return {"held": dict(self.held)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.held = dict(state["held"])


def where_own(episode: Episode) -> Array:
    """bool[T]: the agent's turns, whoever wrote them."""
    return np.concatenate([np.full(len(s), s.sampled or s.tag == MOVE) for s in episode.spans])


def own_turns(episode: Episode) -> Array:
    """int32[n]: their tokens."""
    return episode.tokens[where_own(episode)]


def rewarded(episode: Episode, reward: float) -> Signal:
    """R on the agent's turns."""
    on = where_own(episode).astype(np.float32)
    return Signal(episode, np.float32(reward) * on, {"policy": on})


# ---- the recipe ---------------------------------------------------------------------------------------------------------


def explored() -> list[float]:
    """ "a" is to be spelt in one turn, and nothing else can be written: x fails; then a, with the reason "so": advantages of both."""
    settings = {"group_rollout.explored_turns": 1.0, "group_rollout.explorations": 1}
    task = spelling("a", "a", 1)
    episodes = collected(RECIPE, ("x", "so"), settings=settings, task=task)
    signals = given_stage(RECIPE, "credit")([Group(task, tuple(episodes))], GivenContext())
    return [float(s.advantage.sum()) for s in signals]


def praised(*steps: Sequence[tuple[str, float]], **settings: Any) -> list[float]:
    """Of several steps, each of (question, reward) of attempts of one token: the advantages of the last."""
    credit = given_stage(RECIPE, "credit", **settings)
    signals: list[Signal] = []
    for number, attempts in enumerate(steps):
        groups = []
        for asked in dict.fromkeys(q for q, _ in attempts):
            made = example_answers(*((r, (i + 2,)) for i, (q, r) in enumerate(attempts) if q == asked))
            task = replace(made.task, prompt=(Message("user", asked),))
            groups.append(replace(made, task=task))
        signals = credit(groups, GivenContext(step=number))
    return [float(s.advantage[-1]) for s in signals]


RECIPE: Recipe = Recipe(
    name="a3t",
    base=REINFORCE,
    paper=Paper("ReAct Meets ActRe: When Language Agents Enjoy Training Data Autonomy", "2403.14589", 2024),
    idea="Where the agent fails at a task, it tries again and takes any possible action at some turns. For such an action it then writes "
    "the reason, which is put before it, as if it had thought of it by itself. Trajectories that succeed so are praised, those that failed at "
    "the same task are blamed.",
    equation="L = - (1/N) sum_tau R(tau) sum_t log pi(reason_t, action_t | history),  R = 1 where tau succeeded, else R_f;  over all rounds",
    departures=(
        "guess: R_f = -1, of one failed trajectory per task, where the paper says that rewards are binarised; nothing bounds how unlikely "
        "a failure becomes, so a small learning rate or credit.failed_reward=0 is the safe choice",
        "guess: an action is drawn at half of the turns, in four explorations of a task that no attempt solved",
        "a step is a round; of earlier rounds as many tasks are trained as the step brought, where the paper trains all of them anew",
        "an action is drawn from those that the world names; tasks that are no worlds are not explored",
        "the policy writes the reasons, as it is; group_rollout.reasons names another model",
    ),
    confidence="memory",
    stages={"group_rollout": stage(Explored), "credit": stage(Contrasted), "objective": stage(plain)},
    claim="It solves more of the tasks that it failed at first, round for round, than imitation of its own successes.",
    manipulation=(
        Manipulated(
            "one trajectory in a hundred succeeds by exploration", r"credit\.explored", 0.01, read="max"
        ),
    ),
    examples=(
        ByHand("1 on 'so', a line break, a and the end; -1 on x and its end", explored, [5.0, -2.0]),
        ByHand(
            "two right, one of two wrong; equal ones once; nothing where all fail",
            lambda: praised([("a", 1.0), ("a", 1.0), ("a", 0.0), ("a", 0.0), ("b", 0.0)]),
            [1.0, 1.0, -1.0],
        ),
        ByHand(
            "a fresh success and failure, and one earlier task of two",
            lambda: praised([("a", 1.0), ("b", 1.0)], [("c", 1.0), ("c", 0.0)]),
            [1.0, -1.0, 1.0],
        ),
        ByHand(
            "nothing is kept: fresh ones alone; failures not blamed",
            lambda: praised([("a", 1.0)], [("c", 1.0), ("c", 0.0)], kept_tasks=0, failed_reward=0.0),
            [1.0],
        ),
        OffPolicy(
            "no ratio: sums over a success of two tokens and a failure of one, half of each",
            ratio=(1.0, 2.0, 0.5),
            advantage=(1.0, 1.0, -1.0),
            lengths=(2, 1),
            loss=(1 + (1 - math.log(2)) + (-1 - math.log(2))) / 2,
            gradient=(-0.5, -0.5, 0.5),
        ),
        Reduction(
            "failures not blamed, no worlds: rejection-sampling fine-tuning, summed over tokens",
            "rft",
            {"credit.failed_reward": 0.0},
            {"objective.mean": "sum"},
        ),
    ),
)
