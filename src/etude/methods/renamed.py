"""Settings that had another name in an earlier version: {recipe: {old: new}}. The old name is refused with the new one."""

_BAND = {
    "filter.begin": "filter.begin_at",
    "filter.high": "filter.max_accuracy",
    "filter.low": "filter.min_accuracy",
}
_EXIT = {
    "curriculum.different": "curriculum.diverge_share",
    "curriculum.diverge": "curriculum.diverge_request",
    "curriculum.kappa": "curriculum.exit_kappa",
    "curriculum.least": "curriculum.min_starts",
    "curriculum.most": "curriculum.max_starts",
    "curriculum.share": "curriculum.start_share",
    "curriculum.told": "curriculum.improve_request",
}
_SWS = {
    **_BAND,
    "curriculum.first": "curriculum.first_phase",
    "curriculum.most": "curriculum.weak_accuracy",
    "curriculum.share": "curriculum.weak_share",
}

RENAMED_SETTINGS: dict[str, dict[str, str]] = {
    "easy_to_hard": {"curriculum.begin": "curriculum.begin_at", "curriculum.end": "curriculum.end_at"},
    "exit": _EXIT,
    "exit_diverse": _EXIT,
    "exp3_flad": {"curriculum.share": "curriculum.target_share"},
    "prime": _BAND,
    "pudf": {"curriculum.least": "curriculum.min_arms"},
    "reinforce_ada": {
        "group_rollout.bar": "group_rollout.right_above",
        "group_rollout.size": "group_rollout.round_size",
    },
    "sec": {"curriculum.alpha": "curriculum.sec_alpha", "curriculum.tau": "curriculum.sec_tau"},
    "skill_it": {
        "curriculum.probes": "curriculum.probe_tasks",
        "curriculum.window": "curriculum.loss_window",
    },
    "sws": _SWS,
    "sws_written": {
        **_SWS,
        "group_rollout.ask": "group_rollout.problem_request",
        "group_rollout.least": "group_rollout.min_votes",
    },
    "target_difficulty": {
        "curriculum.rate": "curriculum.target_rate",
        "curriculum.reward": "curriculum.target_reward",
        "curriculum.start": "curriculum.target_start",
    },
    "ucb1_flad": {"curriculum.beta": "curriculum.ucb1_beta", "curriculum.share": "curriculum.target_share"},
}
