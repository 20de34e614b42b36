"""What ``locum status``, ``explain`` and ``judge`` print."""
