"""Training: plan, run, loop, step, checkpoint, and whole sessions. `etude.train(...)` calls `train.session.train`."""
