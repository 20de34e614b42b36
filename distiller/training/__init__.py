"""From a dataset to a student's weights."""
