"""What a study is made of, and how it is run. The studies themselves stand in `etude.studies`, one a file."""
