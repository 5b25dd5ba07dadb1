"""``atdata-cli login`` and ``logout``: a session with an account's server, kept for later runs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from atdata_cli import config
from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output
from atdata_cli.errors import AuthError, UsageError, from_os_error

__all__ = ["login", "logout"]

_LONGEST = 10_000

Handle = Annotated[str, typer.Argument(metavar="HANDLE", help="Handle or DID of the account.", show_default=False)]
LoggedIn = Annotated[
    str | None, typer.Argument(metavar="[HANDLE]", help="Which account, if there are several.", show_default=False)
]
Pds = Annotated[
    str | None, typer.Option("--pds", metavar="URL", help="The account's server, where the handle does not lead to it.")
]
PasswordStdin = Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")]
PasswordFile = Annotated[str | None, typer.Option("--password-file", metavar="FILE", help="Read it from a file.")]
PasswordCommand = Annotated[
    str | None, typer.Option("--password-command", metavar="CMD", help="Read what a command prints, as of a keyring.")
]


def login(
    handle: Handle,
    pds: Pds = None,
    password_stdin: PasswordStdin = False,
    password_file: PasswordFile = None,
    password_command: PasswordCommand = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Log in to an account of the AT Protocol, and keep the session for later runs.

    The password is asked for, or read from where an option or ATDATA_PASSWORD says; better an app password. It is sent
    to the server that the handle leads to, and not kept. The session is, in a file for its owner alone.
    """
    from atdata_cli.atproto.session import Session

    output = Output(as_json=as_json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    if sum(map(bool, (password_stdin, password_file, password_command))) > 1:
        raise UsageError("--password-stdin, --password-file and --password-command exclude each other")
    password = _password(handle, stdin=password_stdin, file=password_file, command=password_command)
    session = Session.login(handle, password, pds, keep=True)
    if as_json:
        output.document({"handle": session.handle, "did": session.did, "pds": session.pds_url})
    else:
        output.say(f"logged in as {session.handle} at {session.pds_url}", style="32")


def _password(handle: str, *, stdin: bool, file: str | None, command: str | None) -> str:
    """The password, from the first line of wherever it is."""
    if stdin or file == "-":
        text = sys.stdin.readline(_LONGEST)
    elif file is not None:
        text = _first_line(file)
    elif command is not None:
        text = _printed(command)
    else:
        try:
            text = config.account_password() or _asked(handle)
        except OSError as error:
            raise from_os_error(error, config.get("ATDATA_PASSWORD_FILE") or "", doing="read") from error
    password = text.rstrip("\r\n")
    if not password:
        raise UsageError("the password is empty", hint="put the password into the first line")
    return password


def _first_line(file: str) -> str:
    try:
        with open(file, encoding="utf-8") as lines:
            return lines.readline(_LONGEST)
    except UnicodeDecodeError as error:
        raise UsageError(
            "this is no file with a password", url=file, hint="one line, with the password alone"
        ) from error
    except OSError as error:
        raise from_os_error(error, file, doing="read") from error


def _printed(command: str) -> str:
    import shlex
    import subprocess

    try:
        ran = subprocess.run(shlex.split(command), stdout=subprocess.PIPE, check=False, text=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"the password's command cannot be run: {error}", hint="name a program and its arguments as in a shell"
        ) from error
    if ran.returncode != 0:
        raise AuthError(
            f"the password's command failed: exit code {ran.returncode}", hint="run it by itself to see what is wrong"
        )
    return ran.stdout.partition("\n")[0]


def _asked(handle: str) -> str:
    if not sys.stdin.isatty():
        raise UsageError(
            "nobody is there to be asked for the password",
            hint="--password-stdin, --password-file or --password-command, or ATDATA_PASSWORD in the environment",
        )
    import getpass

    return getpass.getpass(f"Password of {handle}: ")


def logout(
    handle: LoggedIn = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    as_json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """End the session that login has kept, on the server and here."""
    from atdata_cli.atproto.session import Session

    output = Output(as_json=as_json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    opt.use_network(retries, timeout, ca_bundle)
    session = Session.stored(handle)
    session.logout()
    if as_json:
        output.document({"handle": session.handle, "did": session.did})
    else:
        output.say(f"logged out: {session.handle}", style="32")
