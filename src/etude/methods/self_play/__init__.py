"""Methods by idea: a policy that plays against itself, or poses its own tasks."""
