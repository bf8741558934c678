#!/bin/sh
# Five methods, three seeds, one family of tasks, on the embedded model: under an hour on two CPU cores.
# Started again, it goes on where it was.
exec etude compare grpo rloo dr_grpo topr rft \
    --model smollm2 \
    --tasks chain_sum:max_terms=2,max_digits=2 \
    --budget 3e13-flops \
    --seeds 3 \
    --parallel 2 \
    --set update.lr=1e-5 \
    --set run.tasks_per_step=16 --set run.group_size=8 --set run.max_tokens=12 \
    --set run.eval_problems=100 --set run.eval_samples=4 --set run.evals=1 \
    --out "${1:-runs/bakeoff}"
