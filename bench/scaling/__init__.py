"""How a real placement follows its load."""
