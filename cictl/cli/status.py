"""`cictl status`."""

from __future__ import annotations

from cictl.cli.options import Common, takes_common
from cictl.cli.session import exit_codes, open_session
from cictl.ui.formats import duration
from cictl.ui.glyphs import printable
from cictl.ui.report import print_result, print_text
from cictl.workflow import status
from cictl.workflow.stage import TITLES


@takes_common("directory", "json", "quiet", "debug")
def command(common: Common) -> None:
    """Say what is done, what changed, and what to type next.

    \b
    cictl status
    cictl status -C my-teapot --json
    """
    with exit_codes(common):
        session = open_session(common)
        report = status.run(session.workspace)

        def say() -> None:
            print_result(f"{report.concept}, on {printable(report.model)}, in {session.workspace.called}")
            rows = [["photographs", str(len(report.photographs))]]
            names = {**TITLES, "invert": "stage 1 (invert)", "finetune": "stage 2 (finetune)"}
            trained = [*report.stages, *report.methods]
            rows += [[names[stage.stage], _steps(stage, report.running)] for stage in trained]
            rows += [["pictures", str(report.pictures)], ["exports", _exports(report.exports, report.export_origins)]]
            for name, value in rows:
                print_text(value, f"  {name:<20}")
            shown: dict[str, object] = {}
            for stage in trained:
                for line in (*stage.changed, *stage.damaged, *([stage.ended_early] if stage.ended_early else [])):
                    print_text(line, f"{names[stage.stage]}: ")
                own = {key: value for key, value in stage.overrides.items() if shown.get(key) != value}
                if own:  # what stage 1 was given holds for stage 2 as well, but is said once
                    kept = " ".join(f"{key}={value}" for key, value in own.items())
                    print_text(f"kept from --set: {kept}", f"{names[stage.stage]}: ")
                shown |= own
            if report.running:
                print_text(_said(report.running))
            print_text(session.typed(report.next), "next: ")
            if report.problem:
                print_text(report.problem, "      ")

        session.result(report, say)


def _steps(stage: status.StageStatus, running: status.Running | None) -> str:
    done, steps = (running.step, running.steps) if running and stage.running and running.steps else (stage.step, stage.steps)
    return f"{done}/{steps}  {stage.state}"


def _said(running: status.Running) -> str:
    if not running.certain:
        return f"perhaps running: {running.who}"
    if not running.steps:
        return f"running: {running.who}, not at its first step yet"
    left = "" if running.seconds is None else f", about {duration(running.seconds)} left"
    return f"running: {running.who}, {running.step} of {running.steps} steps are done{left}"


def _exports(files: list[str], origins: list[str]) -> str:
    """The files, or, of more than a line's worth, how many in which formats; and of which trainings."""
    of = f"; of {' and '.join(origins)}" if origins else ""
    if len(files) <= 2:
        return f"{', '.join(files) or 'none'}{of}"
    # The default format lies in outputs/export/ itself, in the folders that the programs have for it.
    folders = {path.split("/")[1] for path in files}
    formats = sorted({"safetensors" if folder in ("embeddings", "loras") else folder for folder in folders})
    return f"{len(files)} files: {', '.join(formats)}{of}"
