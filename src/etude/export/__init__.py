"""A run's model for use elsewhere: a directory, an adapter, a GGUF file, the hub; each with a card made from the run."""
