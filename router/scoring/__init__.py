"""Judging a request, and a student's answer to it: the same code in training and in serving."""
