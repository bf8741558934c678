"""`etude play`: how well a model plays a game, and how far scripted players come in an environment."""

from __future__ import annotations

import json as jsons
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from etude.cli.train import Json, Seed
from etude.printable import say

if TYPE_CHECKING:
    from etude.evaluate.games import KuhnPlay, Score


def add_to(app: typer.Typer) -> None:
    app.command()(play)


def play(
    model: Annotated[
        str,
        typer.Argument(
            help="smollm2, a model directory, a hub name, or a run's directory; or, in an environment, scripted players: "
            "random,greedy,expert"
        ),
    ],
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            "-t",
            help="a game: kuhn_poker, tic_tac_toe, textarena:env=NAME; for scripted players an environment such as house",
        ),
    ] = "kuhn_poker",
    against: Annotated[
        str, typer.Option(help="opponents, joined by commas: scripted players by name, or models and runs")
    ] = "random",
    games: Annotated[
        int, typer.Option(help="games against each opponent, half of them from each seat", min=2, max=100_000)
    ] = 400,
    max_tokens: Annotated[int | None, typer.Option(help="longest reply; a run's own, else 64", min=1)] = None,
    temperature: Annotated[float, typer.Option(help="above 0", min=0.01, max=10)] = 1.0,
    greedy: Annotated[bool, typer.Option(help="the likeliest token always")] = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Games against fixed opponents, with intervals; of Kuhn poker also how far the play is from an equilibrium. In an
    environment: what scripted players reach."""
    from etude.evaluate.players import PLAYERS

    if set(model.split(",")) <= set(PLAYERS):
        _scripted(model.split(","), tasks, games, seed, json)
        return
    from etude.train.games import Played, play_games
    from etude.types import SamplingParams

    longest = max_tokens or _own(model, "max_tokens", 64)
    params = SamplingParams(temperature, greedy=greedy, max_tokens=longest)
    found: Played = play_games(
        model, tasks, [name.strip() for name in against.split(",")], games, params, seed
    )
    if json:
        facts: dict[str, Any] = {
            "model": model,
            "tasks": tasks,
            "scores": [s.to_dict() for s in found.scores],
        }
        say(jsons.dumps(facts | ({"kuhn": found.kuhn.to_dict()} if found.kuhn else {}), indent=2))
        return
    say(
        "\n".join(
            ["opponent           won                    drawn  return a game         illegal  games"]
            + [_line(s) for s in found.scores]
        )
    )
    if found.kuhn:
        say(_kuhn(found.kuhn))


def _scripted(players: list[str], tasks: str, games: int, seed: int, json: bool) -> None:
    from etude.evaluate.players import measure
    from etude.tasks import load

    found = [measure(player, load(tasks), games, seed) for player in players]
    if json:
        say(jsons.dumps({"tasks": tasks, "players": [p.to_dict() for p in found]}, indent=2))
        return
    say("player   solved                   reward  turns  problems")
    for p in found:
        solved = f"{100 * p.solved.mean:.1f} % [{100 * p.solved.low:.1f}, {100 * p.solved.high:.1f}]"
        say(f"{p.player:7} {solved:24} {p.reward:6.3f} {p.turns:6.1f}  {p.solved.problems}")


def _own(model: str, name: str, otherwise: int) -> int:
    from etude.train.measure import run_defaults

    return int(run_defaults(model).get(name, otherwise))


def _line(s: Score) -> str:
    won = f"{100 * s.won.mean:5.1f} % [{100 * s.won.low:.1f}, {100 * s.won.high:.1f}]"
    mean, low, high = s.mean_return
    won_a_game = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"
    return (
        f"{Path(s.opponent).name[:18]:18} {won:22} {100 * s.drawn:5.1f}  {won_a_game:23}"
        f"{100 * s.illegal:5.1f} %  {s.games}"
    )


def _kuhn(k: KuhnPlay) -> str:
    rows = [
        f"exploitability {k.exploitability:.3f} chips a game (0: an equilibrium; 0.458: moves at random)",
        f"value of seat 0 against itself {k.value:+.3f} (in an equilibrium -0.056)",
        f"bets, of {k.samples} replies each   J     Q     K",
    ]
    for history in dict.fromkeys(h for _, h in k.strategy):
        bets = "  ".join(f"{k.strategy[card, history]:.2f}" for card in "JQK")
        rows.append(f"  after {' '.join(history) or 'nothing':14}      {bets}")
    return "\n".join(rows)
