"""How attempts are made: what at least two methods use."""
