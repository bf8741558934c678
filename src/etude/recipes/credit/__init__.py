"""Which words deserve the praise: credit finer than the whole answer."""
