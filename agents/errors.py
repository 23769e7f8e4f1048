"""Errors that a user can mend."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and what would be valid.

    The command line prints the message without a traceback and exits with code 2.
    """


class Damaged(UserError):
    """A file that is missing, cut or changed: what it held is lost, so an older copy may serve instead.

    What may be well again with the next try (no memory, no permission) is not damage.
    """
