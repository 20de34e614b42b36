"""The promise in numbers: bounds, thresholds, the watch over them, estimates, what has changed."""
