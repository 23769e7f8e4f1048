"""Errors that a user can mend."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, where, and what would be valid.

    The command line prints the message without a traceback and exits with code 2.
    """
