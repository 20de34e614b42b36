"""How good a student is, and whether that is enough to serve."""
