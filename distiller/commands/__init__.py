"""The commands of ``locum distill``, a module for each group."""
