"""From store to store: what it takes, what it costs, and doing it."""
