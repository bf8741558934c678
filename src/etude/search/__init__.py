"""How an answer is produced when more than one reply may be spent on it: sessions, votes, scores and trees."""
