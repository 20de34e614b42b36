"""What is minimised, as functions of tensors: each with hand-checked tests."""
