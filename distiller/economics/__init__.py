"""What learning costs and what it saves: a round, a month, the volume from which on it pays, and the next round."""
