"""Locum's learning side: everything between the log and the next bundle."""
