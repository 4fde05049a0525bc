"""Carrying a request to a site and its answer back, byte for byte."""
