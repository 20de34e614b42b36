"""Which tier, before any token."""
