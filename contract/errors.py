"""The ways in which a command ends other than well; both carry a line one can act on."""


class UserError(ValueError):
    """Bad input: the command prints the message and exits with 2."""


class GateRefused(Exception):  # noqa: N818 - it names what happened, not a fault
    """A quality gate said no: the command prints the message and exits with 3."""


class OutOfMemory(UserError):  # noqa: N818 - what happened
    """Settings that ask for more memory than there is; of many processes, maybe only in one."""
