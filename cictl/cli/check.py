"""`cictl check`."""

from __future__ import annotations

from functools import partial

import typer

from cictl.cli.options import Common, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.cli.training import say_estimate
from cictl.ui.report import print_text
from cictl.workflow import check
from cictl.workflow.findings import CheckReport

_SIGNS = {"ok": "ok      ", "warning": "warning ", "error": "error   "}


@takes_common("directory", "assignments", "json", "quiet", "debug")
def command(common: Common) -> None:
    """Look at photographs, settings, model, device and disk before training, and say what it will take.

    \b
    cictl check
    cictl check --set invert.batch_size=8
    """
    with exit_codes(common):
        session = open_session(common)
        report = session.work(partial(check.run, session.workspace, overrides=session.overrides), say)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def say(report: CheckReport) -> None:
    """Print what was found, and what training will take."""
    for finding in report.findings:
        print_text(finding.message, f"{_SIGNS[finding.level]}{finding.about + ':':<13}")
        for line in finding.hint.splitlines():
            print_text(line, f"{'':<21}-> ")
    for number, estimate in enumerate(report.estimates, 1):
        say_estimate(estimate, report.method if number == len(report.estimates) else "")
