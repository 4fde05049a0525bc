"""For every test: hypothesis draws the same examples each time, and fails none for being slow on a busy machine."""

from hypothesis import settings

settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")
