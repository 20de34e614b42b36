"""From the log to a dataset: rows, rights, copies, splits."""
