"""What the processes that serve together must know together."""
