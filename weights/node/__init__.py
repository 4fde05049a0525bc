"""Releases on the disk of a node, from which engines load."""
