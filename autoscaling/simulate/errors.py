"""What a simulation or a calibration may be given that is wrong."""


class SimulateError(Exception):
    """The message names what is wrong, and where."""


class BadTrace(SimulateError):
    """A file is not what it should be. The message names file, line and field."""


class BadModel(SimulateError):
    """A file holds no engine model. The message names the field."""


class UnknownCard(SimulateError):
    """Nothing is known of an accelerator, or a model does not fit on it."""


class CannotFit(SimulateError):
    """What was measured does not tell an engine's coefficients apart."""
