"""Where a teacher's distributions come from: its weights, a server of them, or what an API told when it answered."""
