"""The unattended cycle: what is due, a round with all its stages, the bundle that comes of it."""
