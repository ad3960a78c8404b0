"""The one exception for what a user gave and Kontrast cannot use."""


class InputError(ValueError):
    """Bad input. The message is one sentence: the rule, the value seen, the way out.

    The command line prints it without a traceback and exits with 2. Any other exception is a defect of Kontrast.
    """


class TrainingStopped(RuntimeError):  # noqa: N818  # named as the user reads it
    """Training ended itself: a loss that is not a number, or a collapse under `--on-collapse stop`.

    The command line prints the message without a traceback and exits with 1.
    """
