"""Do the claims of published methods show on a bed where they can? Claims with settings fixed beforehand, gates, two verdicts."""
