"""Locum's serving side: everything between a client's request and its answer."""

__version__ = "0.1.0"
