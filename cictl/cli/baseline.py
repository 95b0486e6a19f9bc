"""`cictl baseline`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from cictl.cli.options import Common, DryRunOption, NounOption, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.cli.training import RestartOption, StepsOption, finish, warn_of_empty_settings
from cictl.config import group_of


class Name(StrEnum):
    """The methods of the paper's Table 1, beside ours."""

    textual_inversion = "textual-inversion"
    dreambooth = "dreambooth"
    custom_diffusion = "custom-diffusion"
    disenbooth = "disenbooth"


@takes_common()
def command(
    common: Common,
    method: Annotated[Name, typer.Argument(metavar="METHOD", help="Which method.", show_default=False)],
    noun: NounOption = None,
    steps: StepsOption = None,
    restart: RestartOption = False,
    dry_run: DryRunOption = False,
) -> None:
    """Train another method on the same photographs, to compare with.

    METHOD is textual-inversion, dreambooth, custom-diffusion or disenbooth, with the settings of the paper's Table 1. All but
    the first need a word for what S* is. In prompts S* stands for what the method calls it. The same command again goes
    on from the last checkpoint, or says that it is done.

    \b
    cictl baseline textual-inversion
    cictl baseline dreambooth --noun teapot
    cictl generate "a S* in the snow" --stage dreambooth
    """
    with exit_codes(common, shared=not dry_run):
        from cictl.workflow import baseline

        flags = {f"{group_of(method.value)}__steps": steps, "evaluate__noun": noun}
        session = open_session(common, **flags)
        with session.display() as observe:
            warn_of_empty_settings(session, observe)
            outcome = baseline.run(
                session.workspace,
                method.value,
                observe,
                overrides=session.overrides,
                restart=restart,
                dry_run=dry_run,
            )
        finish(session, outcome, f'cictl generate "a photo of S*" --stage {method.value}')
