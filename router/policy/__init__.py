"""What a user declares, whole."""
