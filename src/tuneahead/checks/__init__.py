"""Checks of data, recipe and probe; ``tuneahead.preflight`` lists and runs them."""
