"""What may serve: {student, scorer, thresholds}, and where its student answers."""
