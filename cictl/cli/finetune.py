"""`cictl finetune`."""

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
    """Stage 2: tune the cross-attention to S*, for the details.

    The same command again goes on from the last checkpoint, or says that it is done.

    \b
    cictl finetune
    cictl finetune --steps 300
    cictl finetune --set finetune.learning_rate=1e-5 --restart
    """
    with exit_codes(common, shared=not dry_run):
        from cictl.workflow import finetune

        session = open_session(common, finetune__steps=steps)
        with session.display() as observe:
            warn_of_empty_settings(session, observe)
            outcome = finetune.run(session.workspace, observe, overrides=session.overrides, restart=restart, dry_run=dry_run)
        finish(session, outcome, 'cictl generate "a photo of S*"')
