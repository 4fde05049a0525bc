"""Hearing that the provider takes this node back: one reader per provider, and what is news of what they read."""
