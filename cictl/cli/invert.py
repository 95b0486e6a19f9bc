"""`cictl invert`."""

from __future__ import annotations

from cictl.cli.options import Common, DryRunOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.cli.training import RestartOption, StepsOption, finish, warn_of_empty_settings


@takes_common()
def command(
    common: Common,
    steps: StepsOption = None,
    restart: RestartOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Stage 1: learn S*, what the photographs share.

    What each photograph has of its own goes to an auxiliary token of its own. The same command again goes on from
    the last checkpoint, or says that it is done.

    \b
    cictl invert
    cictl invert --steps 500 --set invert.auxiliary_vectors=8
    cictl invert --restart
    """
    with exit_codes(common, shared=not dry_run):
        from cictl.workflow import invert, status

        session = open_session(common, invert__steps=steps)
        with session.display() as observe:
            warn_of_empty_settings(session, observe)
            outcome = invert.run(session.workspace, observe, overrides=session.overrides, restart=restart, dry_run=dry_run)
        finish(session, outcome, status.run(session.workspace).next)  # which may be to train stage 2 anew
