"""vLLM's side of bench/sampling.py."""

from __future__ import annotations

import json
import sys
from typing import Any

from contestants import serve
from vllm import LLM, SamplingParams


def main() -> None:
    job = json.loads(sys.argv[1])
    model = LLM(job["model"], dtype="bfloat16", max_model_len=2048, max_num_seqs=max(128, job["rows"]))
    params = SamplingParams(
        temperature=1.0, max_tokens=job["tokens"], min_tokens=job["tokens"], ignore_eos=True, logprobs=0
    )

    def turn(prompts: list[list[int]]) -> dict[str, Any]:
        inputs = [{"prompt_token_ids": p} for p in prompts]
        found = model.generate(inputs, params, use_tqdm=False)
        chosen = [
            [step[token].logprob for token, step in zip(o.token_ids, o.logprobs, strict=True)]
            for o in (request.outputs[0] for request in found)
        ]
        return {"tokens": float(sum(len(c) for c in chosen)), "lengths": [len(c) for c in chosen]}

    serve(turn)


if __name__ == "__main__":
    main()
