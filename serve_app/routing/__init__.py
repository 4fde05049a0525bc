"""Choosing a site for a request: filter, score, pick. Pure: no Ray, no I/O, no clock of its own."""
