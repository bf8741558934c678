"""The recipes that everyone has."""
