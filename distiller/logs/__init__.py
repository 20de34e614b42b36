"""Logs that exist already, of whoever wrote them: read line by line as calls of a model, each with its answer."""
