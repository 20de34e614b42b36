"""Students without a language model: a closed set of answers behind an encoder and a linear layer. No engine."""
