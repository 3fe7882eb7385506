"""Every error this package raises on purpose: what came, what was expected, what to do."""


class Geo4dError(Exception):
    """Base of all errors a caller can mend; the message is one line."""


class InvalidInputError(Geo4dError):
    """A value breaks a documented contract (shape, dtype, unit, frame, range)."""


class ConfigurationError(Geo4dError):
    """A parameter, file or environment setting is missing or contradictory."""


class BackendUnavailableError(Geo4dError):
    """An optional backend (FoundationPose, MoveIt, GPU library) cannot run here."""


class CheckpointError(Geo4dError):
    """Weights are missing, truncated, of the wrong kind or do not match their config."""


class DatasetError(Geo4dError):
    """An episode or data set on disk cannot be read as data."""


class SimulationError(Geo4dError):
    """The simulated cell cannot do what was asked (unreachable plan, no GL, unknown task)."""


class PredictionTimeoutError(Geo4dError):
    """A generator elsewhere did not answer in time, or is too busy to."""


class PeerLostError(Geo4dError):
    """The process or machine that a prediction depends on is gone or cannot be reached."""


class NodeFailure(Geo4dError):
    """A node cannot do its work any more: its process ends, and whoever watches it stops the arm."""


class RegistrationError(Geo4dError):
    """Two views could not be brought into one frame with enough confidence."""


def require(condition: bool, message: str, error: type[Geo4dError] = InvalidInputError) -> None:
    """Raise `error(message)` unless `condition` holds."""
    if not condition:
        raise error(message)
