"""Is the student's answer as good as the teacher's? Every judge, one way to ask them, and how good they are."""
