"""More than one reply for one answer: which of them is given."""
