"""The laboratory: a small, partly trained model on tasks with steps, where the mechanism of a method shows within a
minute of one core. `--model lab --tasks lab` works wherever a model and tasks are named."""
