"""``atdata-cli doctor``: whether a place can be used, and what to mend if not."""

from __future__ import annotations

import json as jsonlib
from typing import TYPE_CHECKING

from atdata_cli import config
from atdata_cli.cli import options as opt
from atdata_cli.cli.output import Output
from atdata_cli.refs import printable, redact

if TYPE_CHECKING:
    from atdata_cli.stores.doctor import Check

__all__ = ["doctor"]

_STYLES = {"ok": "32", "warning": "33", "failed": "31", "skipped": "2"}
# Somebody is waiting for the answer.
_RETRIES, _SECONDS = 1, 20.0


def doctor(
    url: opt.Examined,
    read_only: opt.ReadOnly = False,
    no_sign_request: opt.NoSignRequest = False,
    endpoint_url: opt.EndpointUrl = None,
    profile: opt.Profile = None,
    region: opt.Region = None,
    store_option: opt.StoreOption = None,
    retries: opt.Retries = None,
    timeout: opt.Timeout = None,
    ca_bundle: opt.CaBundle = None,
    json: opt.Json = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
    color: opt.ColorWhen = opt.Color.AUTO,
) -> None:
    """Check step by step whether datasets can be written to URL and read from it, and say what to mend.

    A small object with a hidden name is written, read and deleted. For S3 the smallest IAM policy is printed too.
    """
    from atdata_cli.stores.doctor import Examination

    output = Output(as_json=json, quiet=quiet, verbose=verbose, no_progress=True, color=color)
    opt.use_network(
        _RETRIES if retries is None and config.get("ATDATA_RETRIES") is None else retries,
        _SECONDS if timeout is None and config.get("ATDATA_TIMEOUT") is None else timeout,
        ca_bundle,
    )
    stores = opt.store_options(endpoint_url, profile, region, store_option, anonymous=no_sign_request)
    examination = Examination(url, stores, read_only=read_only or no_sign_request)
    checks = []
    for check in examination.checks():
        checks.append(check)
        if not (json or quiet):
            output.data([_line(check, colored=output.colors_stdout)])
    policy = examination.policy()
    failed = next((check.error for check in checks if check.error is not None), None)
    if json:
        rows = [
            {"step": check.step, "status": check.status, "said": redact(check.said), "fix": check.fix}
            for check in checks
        ]
        output.document({"url": redact(url), "ok": failed is None, "checks": rows, "policy": policy})
    elif policy is not None and not quiet:
        output.data(["", "The smallest IAM policy for this place:", jsonlib.dumps(policy, indent=2)])
    if failed is not None:
        raise failed


def _line(check: Check, *, colored: bool) -> str:
    status = f"{check.status:8}"
    if colored:
        status = f"\x1b[{_STYLES[check.status]}m{status}\x1b[0m"
    fix = f" ({check.fix})" if check.fix else ""
    return f"{status} {check.step:17} {printable(redact(check.said + fix))}"
