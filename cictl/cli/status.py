"""`cictl status`."""

from __future__ import annotations

from cictl.cli.options import DebugOption, DirectoryOption, JsonOption, QuietOption, exit_codes, open_session
from cictl.ui.report import print_result, print_text
from cictl.workflow import status
from cictl.workflow.stage import TITLES


def command(
    directory: DirectoryOption = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Say what is done, what changed, and what to type next.

    \b
    cictl status
    cictl status -C my-teapot --json
    """
    with exit_codes(json=json, debug=debug):
        session = open_session(directory, [], json, quiet, 0)
        report = status.run(session.workspace)

        def say() -> None:
            print_result(f"{report.concept}, on {report.model}, in {session.workspace.shown(session.workspace.root)}")
            rows = [["photographs", str(len(report.photographs))]]
            names = {**TITLES, "invert": "stage 1 (invert)", "finetune": "stage 2 (finetune)"}
            trained = [*report.stages, *report.methods]
            rows += [[names[stage.stage], f"{stage.step}/{stage.steps}  {stage.state}"] for stage in trained]
            rows += [["pictures", str(report.pictures)], ["exports", _exports(report.exports)]]
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
            print_text(report.next, "next: ")
            if report.problem:
                print_text(report.problem, "      ")

        session.result(report, say)


def _exports(files: list[str]) -> str:
    """The files, or, of more than a line's worth, how many in which formats."""
    if len(files) <= 2:
        return ", ".join(files) or "none"
    # The default format lies in outputs/export/ itself, in the folders that the programs have for it.
    folders = {path.split("/")[1] for path in files}
    formats = sorted({"safetensors" if folder in ("embeddings", "loras") else folder for folder in folders})
    return f"{len(files)} files: {', '.join(formats)}"
