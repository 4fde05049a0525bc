"""What has no counterpart in the other protocol, or cannot be read at all."""

import msgspec

UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises at bytes that are not the JSON it wants."""


class Untranslatable(Exception):
    """The message names the field, for people: a request's for the client, an answer's for the log."""
