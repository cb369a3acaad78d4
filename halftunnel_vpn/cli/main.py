"""`htvpn`: find the command, run it, and turn every failure into one sentence and an exit code.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not connected.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence

from halftunnel_vpn.errors import HalfTunnelError, HostError, UsageError

DONE, FAILED, WRONG_USAGE = range(3)


def entry_point() -> None:
    """Run the console script."""
    if os.getpid() == 1:
        from halftunnel_vpn.cli import first_process

        first_process.stay_behind()
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit code."""
    try:
        options = _parse(arguments)
    except UsageError as error:
        return _say(str(error), WRONG_USAGE)
    except KeyboardInterrupt:
        return _say("interrupted", FAILED)
    except BrokenPipeError:
        return _stop_output()
    except OSError as error:
        return _say(f"{error.strerror or error}", FAILED)
    try:
        code = int(options.run(options))
        _flush()
        return code
    except UsageError as error:
        return _fail(options, error, WRONG_USAGE)
    except HalfTunnelError as error:
        return _fail(options, error, FAILED)
    except KeyboardInterrupt:
        return _say("interrupted", FAILED)
    except BrokenPipeError:
        return _stop_output()
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or error
        return _fail(options, HostError(f"{what}"), FAILED)
    except Exception as error:
        known = _known_error(error)
        if known is not None:
            return _fail(options, known, FAILED)
        if options.debug:
            raise
        kind = type(error).__name__
        return _say(f"an unexpected error occurred ({kind}: {error}); --debug shows where", FAILED)


def _parse(arguments: Sequence[str]) -> Namespace:
    from halftunnel_vpn.cli.arguments import build_parser  # here: Ctrl-C may come while it is imported

    try:
        return build_parser(next(iter(arguments), None)).parse_args(arguments)
    except SystemExit:  # argparse has printed the help or the version
        _flush()
        raise


def _flush() -> None:
    if sys.stdout is not None:  # it is None if the calling process had closed it
        sys.stdout.flush()


def _stop_output() -> int:
    # The reader of our output has closed the pipe. The interpreter must not report it again at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _known_error(error: BaseException) -> HalfTunnelError | None:
    """Return our own exception among those of a task group; None if there is none."""
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            known = _known_error(member)
            if known is not None:
                return known
    return error if isinstance(error, HalfTunnelError) else None


def _fail(options: Namespace, error: HalfTunnelError, code: int) -> int:
    if options.debug:
        import traceback

        traceback.print_exc()
    return _say(str(error), code)


def _say(sentence: str, code: int) -> int:
    print(f"htvpn: {sentence}", file=sys.stderr)
    return code
