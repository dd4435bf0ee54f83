"""The one error tree. Each error names the object and the fix; foreign errors are mapped at the edge."""


class AmbitError(Exception):
    """Something the user can act on: one sentence, and a `hint` with what to type or change.

    The command line prints both and exits with `exit_code`.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class EnvironmentProblem(AmbitError):
    """The machine lacks something: a program, a kernel feature, a permission."""


class NotRunning(AmbitError):
    """The instance or process that was asked for does not run."""


class BadInput(AmbitError):
    """A flag, file or object the user gave is wrong."""

    exit_code = 2


class Unreachable(AmbitError):
    """A server did not answer."""


def first_failure(several: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first failure inside: the one the user can act on, if there is one."""
    error: BaseException = several.subgroup(AmbitError) or several
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
