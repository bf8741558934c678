"""`etude eval` and `etude sample`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from etude.cli.train import Json, Prompt, Seed, Set, Stop, System, Tasks, Tools, Unsafe, asked
from etude.errors import UserError
from etude.printable import say

With = Annotated[
    str, typer.Option("--with", help="a method that answers: NAME[:setting=value,...], such as majority:n=16")
]
Where = Annotated[str, typer.Argument(help="smollm2, a model directory, a hub name, or a run's directory")]


Plain = Annotated[
    bool,
    typer.Option(
        "--plain", help="ask in plain words, without the run's own prompt, system message, examples and stops"
    ),
]


def add_to(app: typer.Typer) -> None:
    app.command("eval")(evaluate)
    app.command()(sample)
    app.command()(compare)


def evaluate(
    model: Where,
    tasks: Annotated[
        str | None, typer.Option("--tasks", "-t", help="NAME[:param=value,...] or FILE.jsonl")
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(help="FILE of pairs with known labels: how well a reward model tells them apart"),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="fixed problems, such as arithmetic or logic/easy")
    ] = None,
    problems: Annotated[
        int | None,
        typer.Option(
            help="at most so many; default: all of a file, 200 of a generator", min=1, max=10_000_000
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option("-k", help="attempts per problem; default: 8, with a method 1", min=1, max=100_000),
    ] = None,
    by: With = "",
    versus: Annotated[
        str | None, typer.Option(help="another model, or with --with another method, on the same problems")
    ] = None,
    budget: Annotated[
        str, typer.Option(help="of a method: 2e10-flops-a-problem or 500-tokens-a-problem")
    ] = "",
    trained: Annotated[
        str | None, typer.Option(help="a run: refuse if its prompts occur among the problems")
    ] = None,
    greedy: Annotated[bool, typer.Option(help="the likeliest token always; one attempt")] = False,
    again: Annotated[
        str, typer.Option(help="a second attempt, after feedback, reconsider or reflect; accuracy is its own")
    ] = "",
    contaminated: Annotated[
        bool,
        typer.Option(
            "--contamination", help="does the model know the questions? It goes on after their first words"
        ),
    ] = False,
    seed: Seed = 0,
    set: Set = None,
    prompt: Prompt = "",
    system: System = "",
    stop: Stop = None,
    tools: Tools = None,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Accuracy on a file's tasks or on held-out problems, with intervals: pass@k, majority@k, by kind and difficulty."""
    from etude.compare.paired import checkpoints
    from etude.evaluate import contamination
    from etude.evaluate.inference import opponent, played
    from etude.report.terminal import eval_screen
    from etude.train.config import parse_changes
    from etude.train.lineage import trained_tasks
    from etude.train.measure import Exam, evaluate_model, exam_tasks

    if pairs is not None:
        from etude.train.judged_pairs import examine

        if tasks is not None or suite is not None:
            raise UserError("give either --pairs, or --tasks or --suite")
        found = examine(model, pairs)
        say(_json(found.to_dict()) if json else found.screen)
        return
    said = {**parse_changes(set or []), **asked(prompt, system, stop, tools)}
    changes = {name.removeprefix("run."): value for name, value in said.items()}
    limit = limit_of(budget, by)
    method = played(by, limit) if by else None
    second = opponent(versus, limit) if by and versus else None
    other_model = model if second else versus
    runs = [where for where in (model, other_model, trained) if where is not None]
    notes: list[str] = []
    name, held = exam_tasks(tasks, suite, problems, runs, notes.extend)
    if trained is not None:
        contamination.refuse(trained_tasks(trained), held, name)
    if contaminated:
        from etude.train.contaminated import facts as of_probe
        from etude.train.contaminated import probe_model, screen

        if by or versus or again:
            raise UserError(
                "--contamination looks at the questions alone; leave --with, --versus and --again out"
            )
        probes = probe_model(model, Exam(name, held, 1, seed, changes=changes, notes=notes))
        say(_json(of_probe(name, probes)) if json else screen(name, probes))
        return
    attempts = k or (1 if method else 8)
    exam = Exam(name, held, attempts, seed, greedy, changes, again, notes, method)
    result = evaluate_model(model, exam)
    other = (
        evaluate_model(other_model, replace(exam, notes=(), method=second or method))
        if other_model and versus
        else None
    )
    names = (method.label, second.label) if method and second else None
    difference = checkpoints(result, other, names=names) if other else None
    if json:
        facts = result.to_dict()
        if other and difference:
            facts |= {"versus": other.to_dict(), "difference": difference.to_dict()}
        say(_json(facts))
        return
    say(eval_screen(result.to_dict()))
    if other and difference:
        say(f"\n{versus}\n{eval_screen(other.to_dict())}\n\n{difference.verdict}")


def limit_of(budget: str, method: str) -> Any:
    """What one problem may cost. UserError for a budget without a method."""
    from etude.errors import UserError
    from etude.search.ledger import Limit

    if budget and not method:
        raise UserError("--budget is what a method may spend on a problem; name one by --with")
    return Limit.parse(budget) if budget else Limit()


def compare(
    recipes: Annotated[
        list[str],
        typer.Argument(
            help="arms: RECIPE, or NAME=RECIPE:stage.field=value,...; with --only-inference METHOD:setting=value,value,..."
        ),
    ],
    tasks: Tasks,
    budget: Annotated[
        str,
        typer.Option(
            help="for each run: 5m, 300k-tokens, 2e14-flops or 100-steps; of inference: 2e10-flops-a-problem"
        ),
    ] = "",
    model: Annotated[str, typer.Option("--model", "-m")] = "smollm2",
    only_inference: Annotated[
        bool, typer.Option("--only-inference", help="compare ways of answering; no weight is changed")
    ] = False,
    problems: Annotated[
        int | None, typer.Option(help="of --only-inference: at most so many", min=1, max=10_000_000)
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="runs per arm; default: 3, of --only-inference 1", min=1, max=10_000)
    ] = None,
    out: Annotated[Path, typer.Option(help="where the comparison lives; started again it goes on")] = Path(
        "runs/comparison"
    ),
    tune: Annotated[
        int, typer.Option(help="learning rates to try per arm, from half of its budget", min=0, max=6)
    ] = 0,
    parallel: Annotated[
        int, typer.Option(help="runs at once; timings compare only with 1", min=1, max=1024)
    ] = 1,
    set: Set = None,
    prompt: Prompt = "",
    system: System = "",
    stop: Stop = None,
    unsafe_execution: Unsafe = False,
    json: Json = False,
) -> None:
    """Which recipe makes this model better at this task, and is the difference real?"""
    from etude.compare.arms import parse_arms
    from etude.compare.comparison import Comparison, run_comparison
    from etude.compare.table import screen
    from etude.errors import UserError
    from etude.report.page import write_report
    from etude.train.config import Budget, parse_changes

    if only_inference:
        _compare_inference(
            recipes, tasks, budget, model, seeds or 1, out, problems, parse_changes(set or []), json
        )
        return
    if not budget:
        raise UserError("--budget is missing: what each run may spend, as in --budget 5m")
    if problems is not None:
        raise UserError("--problems is of --only-inference; a run examines run.eval_problems, given by --set")
    comparison = Comparison(
        parse_arms(recipes),
        model,
        tasks,
        Budget.parse(budget),
        range(3 if seeds is None else seeds),
        out,
        {**parse_changes(set or []), **asked(prompt, system, stop)},
        parallel,
        tune,
    )
    results = run_comparison(comparison, lambda text: None if json else say(text, err=True))
    page = write_report(out)
    say(_json(results) if json else f"{screen(results)}\n\npage: {page}")


def _compare_inference(
    methods: list[str],
    tasks: str,
    budget: str,
    model: str,
    seeds: int,
    out: Path,
    problems: int | None,
    changes: dict[str, str],
    as_json: bool,
) -> None:
    from etude.compare.inference import InferenceComparison, compare_inference, screen
    from etude.report.page import write_report
    from etude.search.ledger import Limit

    limit = Limit.parse(budget) if budget else Limit()
    comparison = InferenceComparison(methods, model, tasks, out, limit, range(seeds), problems, changes)
    results = compare_inference(comparison, lambda text: None if as_json else say(text, err=True))
    page = write_report(out)
    say(_json(results) if as_json else f"{screen(results)}\n\npage: {page}")


def sample(
    model: Where,
    prompt: Annotated[str, typer.Argument(help="what the user says")],
    n: Annotated[int, typer.Option("-n", help="replies", min=1, max=100_000)] = 1,
    max_tokens: Annotated[int, typer.Option(help="longest reply", min=1, max=2**31 - 1)] = 128,
    temperature: Annotated[float, typer.Option(help="above 0", min=0.01, max=10)] = 1.0,
    greedy: Annotated[bool, typer.Option(help="the likeliest token always")] = False,
    plain: Plain = False,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Replies of a model to a prompt, with their log-probability."""
    import asyncio

    from etude import seeds
    from etude.sampling.engine import sampler_for
    from etude.text.stream import before
    from etude.train.measure import load_policy
    from etude.train.put import asking
    from etude.types import Message, SamplingParams

    policy = load_policy(model)
    stops = asking(policy, model, plain).stop
    sampler = sampler_for(policy)
    params = SamplingParams(temperature, greedy=greedy, max_tokens=max_tokens, stop=stops)
    tokens = policy.renderer.prompt([Message("user", prompt)], 1)

    async def replies() -> list[Any]:
        return await asyncio.gather(
            *(sampler.sample(tokens, params, seeds.key(seed, "sample", prompt, i)) for i in range(n))
        )

    found = [
        {
            "text": before(policy.renderer.decode(s.tokens), stops),
            "logp": float(s.logp.sum()),
            "tokens": len(s.tokens),
            "stop": s.stop,
        }
        for s in asyncio.run(replies())
    ]
    if json:
        say(_json(found))
        return
    for number, reply in enumerate(found, 1):
        say(f"[{number}] log p {reply['logp']:.2f}, {reply['tokens']} tokens, stop: {reply['stop']}")
        say(reply["text"])


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, default=str)
