"""Settings that had another name in an earlier version: {recipe: {old: new}}. The old name is refused with the new one."""

RENAMED_SETTINGS: dict[str, dict[str, str]] = {
    "critique_grpo": {
        "objective.length": "objective.length_divisor",
        "objective.gamma": "objective.shaping_gamma",
    },
    "dpo": {
        "objective.beta": "objective.dpo_beta",
    },
    "erl": {
        "rollout.speaker": "rollout.writer",
        "credit.reflections": "credit.train_reflections",
        "credit.seconds": "credit.train_second",
        "objective.low": "objective.clip_low",
        "objective.high": "objective.clip_high",
        "objective.distil": "objective.distil_weight",
        "objective.beta": "objective.kl_weight",
    },
    "guide": {
        "group_rollout.attempts": "group_rollout.guided_per_failed",
    },
    "lemma": {
        "group_rollout.fresh": "group_rollout.restart_share",
        "credit.mask": "credit.mask_errors",
    },
    "mistake_tuning": {
        "rollout.wrong": "rollout.mark",
        "credit.most": "credit.max_answers",
    },
    "re_rest": {
        "credit.reflector": "credit.train_repair",
    },
    "rise": {
        "rollout.turns": "rollout.attempts",
        "rollout.improver": "rollout.writer",
        "credit.tau": "credit.reward_temperature",
    },
    "rise_editing": {
        "objective.beta": "objective.dpo_beta",
        "objective.nll": "objective.nll_weight",
    },
    "rltf_fm": {
        "reward.form": "reward.form_penalty",
        "credit.gamma": "credit.turn_discount",
        "objective.feedback": "objective.critique_weight",
    },
    "rltf_sd": {
        "reward.form": "reward.form_penalty",
        "credit.gamma": "credit.turn_discount",
        "credit.floor": "credit.logp_floor",
        "objective.distil": "objective.distil_weight",
    },
    "scaf_grpo": {
        "group_rollout.begin": "group_rollout.begin_at",
    },
    "score": {
        "credit.alpha": "credit.progress_bonus",
        "credit.beta1": "credit.kl_weight",
        "credit.beta2": "credit.first_kl_weight",
        "credit.baseline": "credit.centre",
    },
    "t_reg": {
        "objective.beta": "objective.dpo_beta",
        "objective.alpha": "objective.regulariser_weight",
    },
    "think_tuning": {
        "group_rollout.begin": "group_rollout.first_share",
        "group_rollout.end": "group_rollout.last_share",
        "group_rollout.until": "group_rollout.end_at",
        "group_rollout.cut": "group_rollout.least_share",
        "group_rollout.teacher": "group_rollout.writer",
        "credit.bound": "credit.advantage_bound",
        "objective.low": "objective.clip_low",
        "objective.high": "objective.clip_high",
        "objective.dual": "objective.dual_clip",
    },
    "ufo": {
        "reward.decay": "reward.turn_factor",
        "reward.repeat": "reward.repeat_penalty",
        "reward.malformed": "reward.form_penalty",
        "filter.share": "filter.keep_share",
    },
}
