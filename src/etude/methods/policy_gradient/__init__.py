"""Attempts are sampled, compared and reinforced: the ratio, its clip, the baseline, the mean."""
