"""Which method is better at equal compute: arms, schedule, statistics, verdict."""
