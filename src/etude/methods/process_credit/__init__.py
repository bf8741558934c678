"""Credit finer than the whole answer: steps, turns, spans, tokens."""
