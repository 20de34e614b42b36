"""Where records are kept: what every request asked, who answered, what it cost, how it was judged."""
