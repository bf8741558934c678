"""From rewards to what each token is praised or blamed for: what at least two methods use."""
