"""Help for tasks that no attempt solves."""
