"""What an episode is worth: what at least two methods use."""
