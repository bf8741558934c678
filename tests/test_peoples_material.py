"""Five people's material, from nothing to a finished run and a served model, by the commands of the tutorial alone."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import etude
from etude import cli
from etude.models.policy import Policy
from etude.models.tiny import tiny_directory
from test_site import FAST, run_line
from test_using_a_model import Served, bytewise

DRAW = random.Random(0)
QWEN = (  # as Qwen3 writes its turns, with thinking on or off, and without the thoughts of earlier turns
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}"
    "{{ m['content'].split('</think>')[-1].lstrip('\\n') if m['role'] == 'assistant' else m['content'] }}"
    "{{ '<end>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)


def gsm8k(place: Path) -> str:
    """Lines of GSM8K: a worked solution with calculator marks, and the answer behind ####."""
    rows = []
    for _ in range(30):
        a, b = DRAW.randint(2, 40), DRAW.randint(2, 9)
        solution = f"Ann had {a} nuts.\nShe found {b} times as many: {a}*{b}=<<{a}*{b}={a * b}>>{a * b}.\n#### {a * b:,}"
        rows.append(
            {
                "question": f"Ann had {a} nuts and found {b} times as many. How many did she find?",
                "answer": solution,
            }
        )
    (place / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "train.jsonl"


def trl(place: Path) -> str:
    """TRL's conversational prompts with a solution in LaTeX, as Parquet."""
    asked = "Reason step by step and put the answer into \\boxed{}."
    rows = [
        {
            "prompt": [
                {"role": "system", "content": asked},
                {"role": "user", "content": f"What is \\frac{{{n}}}{{{d}}} + 1?"},
            ],
            "solution": f"\\frac{{{n}}}{{{d}}} + 1 = \\boxed{{\\frac{{{n + d}}}{{{d}}}}}",
        }
        for n in range(1, 7)
        for d in (7, 11, 13, 17, 19)
    ]
    pq.write_table(pa.Table.from_pylist(rows), place / "prompts.parquet")
    return "prompts.parquet"


def choices(place: Path) -> str:
    """A spreadsheet of multiple choice: a column for each choice, and the letter of the right one."""
    with open(place / "quiz.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "A", "B", "C", "D", "answer", "source"])
        for number in range(2, 32):
            right = DRAW.randrange(4)
            shown = [number * number + step - right for step in range(4)]
            rows.writerow([f"What is {number} squared?", *shown, "ABCD"[right], "exam, 2024"])
    return "quiz.csv"


def columns(place: Path) -> str:
    """Prompts with columns that only the author's reward understands."""
    rows = [
        {"prompt": f"Say something about {n}.", "answer": str(n), "at_most": n % 7 + 3, "tone": "friendly"}
        for n in range(30)
    ]
    (place / "briefs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "briefs.jsonl"


def sums(place: Path) -> str:
    rows = [{"problem": f"{n}+{n + 1}=", "answer": 2 * n + 1} for n in range(30)]
    (place / "sums.json").write_text(json.dumps(rows))
    return "sums.json"


def llama(place: Path, name: str) -> str:
    return str(tiny_directory(place / name, bytewise(), layers=1, width=16, heads=2, kv_heads=1, seed=3))


def qwen(place: Path, name: str) -> str:
    backend = bytewise()
    backend.add_special_tokens(["<|im_start|>"])
    backend.add_tokens(["<think>", "</think>"])
    return str(
        tiny_directory(
            place / name,
            backend,
            layers=1,
            width=16,
            heads=2,
            kv_heads=1,
            seed=3,
            family="qwen3",
            template=QWEN,
        )
    )


MATERIAL: dict[str, tuple[Callable[[Path], str], Callable[[Path, str], str], str, tuple[str, ...]]] = {
    # who: (the file, the model, how answers are compared, what else is said to `etude plan`)
    "GSM8K": (gsm8k, llama, "number", ()),
    "TRL": (trl, llama, "number", ()),  # a fraction is one
    "multiple choice": (choices, llama, "choice", ()),
    "columns for a reward": (columns, llama, "number", ()),
    "a reasoning model": (sums, qwen, "number", ("--set", "run.thinking=false")),
}


@pytest.mark.parametrize("who", MATERIAL)
def test_from_nothing_to_a_served_model(
    who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    make, build, compared, more = MATERIAL[who]
    monkeypatch.chdir(tmp_path)
    file, model = make(tmp_path), build(tmp_path, "model")

    def do(line: str) -> str:
        run_line(line, model, tmp_path, capsys)
        return line

    assert cli.run(["tasks", file, "-n", "3", "--json"]) == 0
    seen = json.loads(capsys.readouterr().out)
    assert len(seen) == 3
    for row in seen:
        assert compared in row["check"], row["check"]
        assert (row["gold_accepted"], row["wrong_rejected"]) == ("yes", "yes")
    do(f"etude tasks {file} -n 3 -m smollm2")
    do(f"etude check -t {file} -m smollm2 --set run.max_tokens=24")
    settings = " ".join(more)
    do(f"etude plan grpo -m {model} -t {file} --budget 10m --set run.max_tokens=24 {settings} > plan.toml")
    if who == "columns for a reward":
        run = etude.train(
            "plan.toml", budget=1, reward=brief, settings=FAST, out="runs/mine", force=True, progress=False
        )
        scores = run.directory.episodes(columns=["scores"]).to_pylist()
        assert {"short enough", "on topic", "reward"} <= json.loads(scores[0]["scores"]).keys()
    else:
        do("etude train plan.toml --out runs/mine")
    do("etude show runs/mine 1-0")
    do("etude report runs/mine")
    do(f"etude eval runs/mine -t {file} -k 4")
    do('etude ask runs/mine "What is 3 + 4?"')
    do("etude export runs/mine --to my-model")
    assert (tmp_path / "runs" / "mine" / "report.html").stat().st_size > 1000

    served = Served(monkeypatch)
    do("etude serve my-model --port 8000")
    client = openai.OpenAI(base_url=served.address, api_key="none")
    reply = client.chat.completions.create(
        model="my-model", messages=[{"role": "user", "content": "What is 3 + 4?"}], max_tokens=4, seed=1
    )
    served.end()
    assert reply.usage.completion_tokens > 0
    if who == "TRL":
        run_line("etude ask my-model 'What is 1?' --json", model, tmp_path, capsys)
        assert '"system": "Reason step by step' in (tmp_path / "my-model" / "README.md").read_text()
    if who == "a reasoning model":
        asked = Policy.load("my-model").renderer
        assert "<think>" not in asked.tokenizer.decode(
            asked.prompt([etude.Message("user", "?")]), special=True
        )
        row = etude.load("runs/mine").directory.episodes(columns=["pieces", "sampled"]).to_pylist()[0]
        before = "".join(p for p, mine in zip(row["pieces"], row["sampled"], strict=True) if not mine)
        assert "</think>" in before, "thinking was switched off"
        told = json.loads((tmp_path / "my-model" / "etude.json").read_text())
        assert told["thinking"] is False


def brief(episode: etude.Episode) -> dict[str, float]:
    """What the author of the file wants: a friendly line that is no longer than its column says."""
    most = episode.task.meta["at_most"]
    assert episode.task.meta["tone"] == "friendly"
    return {"short enough": float(len(episode.text) <= most), "on topic": float(episode.correct)}


def test_the_commands_are_those_of_the_tutorial() -> None:
    """What is done here stands in the tutorial or beside it, so that whoever follows these pages arrives."""
    from documents import ROOT, commands

    pages = ("docs/tutorial/your-file.md", "docs/tutorial/your-reward.md", "docs/using-a-model.md")
    shown = {words[0] for page in pages for words in commands(page)}
    assert {"tasks", "check", "plan", "train", "show", "report", "eval", "ask", "export", "serve"} <= shown
    assert "etude.train(" in (ROOT / "docs/tutorial/your-reward.md").read_text()
