"""What goes wrong with programs of tensors."""


class BadRelease(Exception):
    """A release is no program that can be served. The message says which of its files, and what to mend."""


class Unable(Exception):
    """The program fails on these rows, though not on others: they are at fault."""


class Broken(Exception):
    """The program, or its device, fails whatever it is given."""


class NoMemory(Exception):
    """The device had no memory left for these rows."""
