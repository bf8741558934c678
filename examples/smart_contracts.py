"""Text of a field, labelled answers, preferences: three stages, as Smart-LLaMA-DPO (arXiv 2506.18245) has them.

    python examples/smart_contracts.py [DIRECTORY [STEPS [MODEL]]]

The contracts are made by rule, so that it is known which of them can be robbed: those that pay before they write down what was paid, and
those that ask who signed the transaction and not who called. The first stage reads code; the second learns verdict, place and reason; the
third prefers, of two explanations with the same verdict, the one that names the place and the reason. The paper's own loss for it is
not public; it is said to raise the better explanation as well as to lower the worse, and `rpo` does that.
"""

import itertools
import json
import sys
from pathlib import Path

from etude.evaluate.likelihood import reference_logp
from etude.models.policy import Policy
from etude.tasks.check import Unjudged
from etude.tasks.pairs import CHOSEN
from etude.train.pipeline import read, run_pipeline
from etude.types import Task

PAY, WRITE = 'msg.sender.call{value: owed}("");', "balance[msg.sender] = 0;"
NAMES = ("withdraw", "payOut", "refund", "collect", "claimAll", "takeBack", "cashOut", "release")
ASK = "Can this function be robbed? Say which line is to blame, and why.\n\n"


def contracts() -> list[dict[str, str]]:
    """Functions with their verdict, a good explanation and a poor one."""
    rows = []
    for name, early, signer in itertools.product(NAMES, (True, False), (True, False)):
        who = "tx.origin" if signer else "msg.sender"
        lines = [f"require({who} == owner);", *((PAY, WRITE) if early else (WRITE, PAY))]
        body = "\n".join(f"  {number} {line}" for number, line in enumerate(lines, 1))
        reasons = ["line 1 asks who signed and not who called"] * signer
        reasons += ["line 2 pays before the balance is set to 0, so that the call can come back"] * early
        verdict = "Yes" if reasons else "No"
        good = f"{verdict}: {' and '.join(reasons) or 'the balance is set to 0 before it is paid, and the caller is asked'}."
        poor = f"{verdict}: contracts of this kind {'often have flaws' if reasons else 'are mostly fine'}."
        rows.append({"code": f"function {name}() {{\n{body}\n}}", "good": good, "poor": poor})
    return rows


def material(place: Path) -> None:
    """code.jsonl, labelled.jsonl and pairs.jsonl."""
    rows = contracts()
    files = {
        "code": [{"prompt": "Solidity", "reference": r["code"], "answer": r["code"]} for r in rows],
        "labelled": [{"prompt": ASK + r["code"], "reference": r["good"], "answer": r["good"]} for r in rows],
        "pairs": [{"prompt": ASK + r["code"], "chosen": r["good"], "rejected": r["poor"]} for r in rows],
    }
    for name, lines in files.items():
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (place / f"{name}.jsonl").write_text(text, encoding="utf-8")


def stages(place: Path, steps: int, model: str) -> Path:
    """pipeline.toml."""
    kinds = (
        ("read", "sft", "tasks", "code"),
        ("label", "sft", "tasks", "labelled"),
        ("prefer", "rpo", "pairs", "pairs"),
    )
    settings = '"run.tasks_per_step" = 8, "run.eval_problems" = 4, "run.preflight" = 1'
    tables = [f'model = "{model}"']
    for name, recipe, word, file in kinds:
        tables.append(f'[[stage]]\nname = "{name}"\nrecipe = "{recipe}"\n{word} = "{place / file}.jsonl"')
        tables.append(f'budget = "{steps}-steps"\nsettings = {{{settings}}}')
    (place / "pipeline.toml").write_text("\n".join(tables) + "\n", encoding="utf-8")
    return place / "pipeline.toml"


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/smart_contracts")
    place.mkdir(parents=True, exist_ok=True)
    material(place)
    steps, model = (
        int(sys.argv[2]) if len(sys.argv) > 2 else 40,
        sys.argv[3] if len(sys.argv) > 3 else "smollm2",
    )
    run_pipeline(read(stages(place, steps, model)), place / "runs", force=True)
    pairs = [json.loads(line) for line in (place / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    for name in ("label", "prefer"):  # does the better explanation stay as likely as it was?
        policy = Policy.load(str(place / "runs" / name / "model"))
        for side in (CHOSEN, "rejected"):
            said = reference_logp(policy, [Task(p["prompt"], Unjudged(), reference=p[side]) for p in pairs])
            print(f"after '{name}': {side} {sum(float(x.mean()) for x in said) / len(said):.2f} nats a token")
