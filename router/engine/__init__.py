"""The student, served here: an engine process of its own, started, supervised and swapped without a restart.

``transformers serve`` was looked at first. It speaks the wire and batches, but refuses ``logprobs`` and
``n``, and cannot serve a second version from a folder under a name of its own; acceptance rests on the
first and the hot swap on the second.
"""
