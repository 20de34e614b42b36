"""The forms that a trained student is served in."""
