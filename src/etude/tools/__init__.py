"""Tools that a policy may call: what one is, those that come with etude, those of users, and a session of them for an episode."""
