"""What scorers read in a request's text."""
