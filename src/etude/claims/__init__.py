"""Do the claims of published methods show on a bed where they can? Claims with settings fixed beforehand, gates, two verdicts."""

AXES = {
    "updates": "reproduces?",
    "flops": "pays for itself?",
}  # what two runs are equal in, and what that asks
