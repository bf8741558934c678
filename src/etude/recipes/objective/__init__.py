"""Published policy objectives: what replaces GRPO's loss, its normalisation, or the data that it sees."""
