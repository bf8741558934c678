"""Other words for the same question: what is asked, in which order, with which help."""
