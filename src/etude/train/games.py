"""Models by name at a game: what `etude play` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from etude import tasks as sources
from etude.errors import UserError
from etude.evaluate.games import KuhnPlay, Score, against, kuhn_play
from etude.evaluate.run import hold_out
from etude.event_loop import run as run_coroutine
from etude.models.load import MODELS
from etude.report.run import is_run
from etude.rollout.conversation import Generator
from etude.rollout.group_rollout import checks_in
from etude.sampling.engine import sampler_for
from etude.tasks.game import Match, scripted
from etude.tasks.isolate import Pool
from etude.tasks.kuhn_poker import KuhnPoker
from etude.train.measure import load_policy
from etude.types import SamplingParams, Task

OPPOSITE = "teacher"  # under which name another model sits opposite (`rollout.seats`)


@dataclass(frozen=True)
class Played:
    scores: Sequence[Score]
    kuhn: KuhnPlay | None = None


def play_games(
    model: str, tasks: str, opponents: Sequence[str], games: int, params: SamplingParams, seed: int = 0
) -> Played:
    """`games` games against each of `opponents`: scripted players of the game by name, or models and runs. Raises UserError for
    tasks that are no game, and for an opponent that is neither."""

    def speaking(where: str) -> Generator:
        policy = load_policy(where)
        return Generator(sampler_for(policy), policy.renderer, params, limit=policy.context)

    own = speaking(model)
    problems = hold_out(sources.load(tasks), (games + 1) // 2)
    game = _game(problems[0])
    others = [name for name in opponents if not _plays(game, name)]
    models = {name: speaking(name) for name in others}
    with Pool() as pool:
        checks = checks_in(pool, own.sampler, {})
        scores = []
        for name in opponents:
            opposite = {OPPOSITE: models[name]} if name in models else {}
            who = OPPOSITE if opposite else name
            found = run_coroutine(against(who, own, checks, problems, seed, opposite))
            scores.append(Score(**{**vars(found), "opponent": name}))
        kuhn = None
        if isinstance(game, KuhnPoker):
            kuhn = run_coroutine(kuhn_play(own, checks, problems[0], seed=seed))
    return Played(scores, kuhn)


def _game(task: Task) -> object:
    if not isinstance(task.environment, Match):
        raise UserError(
            f"'{task.kind}' is no game of two players; choose one such as kuhn_poker or tic_tac_toe"
        )
    return task.environment.game()


def _plays(game: object, name: str) -> bool:
    """Whether `name` is a scripted player of the game; False for a model. Raises UserError for what is neither."""
    try:
        scripted(game, name)
        return True
    except UserError:
        if Path(name).exists() or is_run(name) or name in MODELS:
            return False
        raise
