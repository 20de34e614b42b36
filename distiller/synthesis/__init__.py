"""Requests that the teacher writes and answers, for kinds of traffic that are thin or that the student fails at."""
