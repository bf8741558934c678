"""Learning from a second attempt, from mistakes, and from what is said of them."""
