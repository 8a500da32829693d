"""The command line. Invariant: an error is one line on standard error, after a traceback only where `--debug` asks for it; exit
code 2 for a usage error, 1 for a failed run, 130 after Ctrl-C, 143 after SIGTERM. Each command's file imports its dependencies
when it runs, so that `cotbench --help` answers at once.
"""

from __future__ import annotations

import sys

from cotbench.cli.interruption import INTERRUPTED, Interruption
from cotbench.cli.terminal import echo_error, flush_streams, open_streams
from cotbench.errors import BugError, CotbenchError
from cotbench.json_text import lone_surrogate
from cotbench.printable import one_line


def main() -> None:
    """Run the command line of this process, and exit with its code."""
    open_streams()
    interruption = Interruption()
    try:
        with interruption.handled():
            try:
                code = run_cli(sys.argv[1:])
            finally:
                interruption.release()
    except KeyboardInterrupt:  # Another one, while the command was ending.
        code = _print_error("interrupted", INTERRUPTED)
    except Exception as error:
        code = _print_unexpected(error)
    failure = flush_streams()
    if failure is not None and not isinstance(failure, BrokenPipeError):
        code = _print_error(f"the output is incomplete: {failure.strerror or failure}", code or 1)
    sys.exit(interruption.exit_code(code))


def run_cli(arguments: list[str], *, debug: bool = False) -> int:
    """Run a command line, and return its exit code.

    Args:
        arguments: the words after `cotbench`.
        debug: show the traceback of a failure, as `--debug` among the arguments does.
    """
    from typer.exceptions import Abort, Exit, TyperException

    from cotbench.cli.app import app, with_resume_value
    from cotbench.cli.renamed import unknown_option

    place = lone_surrogate(arguments)
    if place is not None:
        return _print_error(f"the argument {arguments[int(place)]!a} is not UTF-8: rename what it names", 2)
    try:
        code = app(with_resume_value(arguments), prog_name="cotbench", standalone_mode=False)
    except CotbenchError as error:
        return _print_failure(error, str(error), debug or DEBUG in arguments)
    except Exit as error:
        return int(error.exit_code)
    except TyperException as error:
        return _print_error(unknown_option(error) or error.format_message(), error.exit_code)
    except (KeyboardInterrupt, Abort):
        return _print_error("interrupted", INTERRUPTED)
    except BrokenPipeError:
        return 0  # The reader of our output closed the pipe, as `head` does.
    except OSError as error:
        return _print_error(f"{error.strerror or error}: {error.filename or 'the disk or the network'}", 1)
    except Exception as error:
        if not debug and not _has_debug(arguments):
            raise
        from cotbench.failure import exception_line

        return _print_failure(error, exception_line(error), debug or DEBUG in arguments)
    return code if isinstance(code, int) else 0


DEBUG = "--debug"


def _has_debug(arguments: list[str]) -> bool:
    """Return whether the command takes `--debug`."""
    from cotbench.cli.app import COMMANDS, load_command

    name = next((word for word in arguments if word in COMMANDS), None)
    return name is not None and any(DEBUG in parameter.opts for parameter in load_command(name, []).params)


def _print_failure(error: Exception, message: str, debug: bool) -> int:
    """Print an exception that ended a command: its traceback where that is wanted, then one line.

    Of an exception that was raised on purpose the traceback says nothing; that of its cause does.
    """
    from cotbench.failure import traceback_text

    code = error.exit_code if isinstance(error, CotbenchError) else 1
    cause = error if not isinstance(error, CotbenchError) else error.__cause__
    text = error.traceback if isinstance(error, CotbenchError) else None
    if text is None and cause is not None and not isinstance(cause, CotbenchError):
        text = traceback_text(cause)
    if debug and text is not None:
        echo_error(text)
    unexpected = isinstance(error, BugError) or not isinstance(error, CotbenchError)
    hint = f"; {DEBUG} shows the traceback" if unexpected and text is not None and not debug else ""
    return _print_error(message + hint, code)


def _print_unexpected(error: Exception) -> int:
    from cotbench.failure import traceback_text

    echo_error(traceback_text(error))
    return 1


def _print_error(message: str, code: int) -> int:
    if message:
        echo_error(one_line(f"error: {message}"))
    return code
