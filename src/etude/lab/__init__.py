"""The laboratory: a small model that can read, on tasks with steps, where the mechanism of a method shows within minutes
of one core. `--model lab --tasks lab` works wherever a model and tasks are named."""
