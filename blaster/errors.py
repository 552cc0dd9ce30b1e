"""The errors a user can meet: each is one line and an exit status."""


class BlasterError(Exception):
    """Something went wrong that the user can be told in one line."""

    exit_status = 1


class UsageError(BlasterError):
    """An option, a variable or a file is wrong: names it, its value and what would be right."""

    exit_status = 2


class TargetUnreachable(BlasterError):
    """Nobody listens at the endpoint, or what listens does not speak OTLP."""

    exit_status = 3
