"""The kinds of source that weights are pushed from."""
