"""Small worlds that are played in words, each in three levels, with a scripted expert: on them methods for agents show what they
do in minutes on two cores. Results of scripted players: `docs/environments.md`."""
