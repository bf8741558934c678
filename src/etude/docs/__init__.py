"""Pages about methods: what each is, what was claimed of it, and what came out."""
