"""The recipes of data. A file offers `RECIPE` or `RECIPES`."""
