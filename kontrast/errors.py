"""The one exception for what a user gave and Kontrast cannot use."""


class InputError(ValueError):
    """Bad input. The message is one sentence: the rule, the value seen, the way out.

    The command line prints it without a traceback and exits with 2. Any other exception is a defect of Kontrast.
    """
