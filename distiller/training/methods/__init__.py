"""How a student learns: each method is what one pass minimises, and what it needs for that."""
