"""What hosted targets say, and how to say things to them. Translation only: no I/O."""
