"""The base model that draws, loaded once for all that is drawn with it. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cictl.config import Config
from cictl.events import Observer, PhaseStarted
from cictl.models.locate import Located
from cictl.processes import Processes

if TYPE_CHECKING:
    from cictl.engine.runtime import Runtime
    from cictl.models.safety import SafetyChecker
    from cictl.models.stable_diffusion import StableDiffusion


@dataclass(frozen=True)
class Opened:
    """What draws; of equal keys the same draws."""

    key: tuple[object, ...]
    runtime: Runtime
    model: StableDiffusion
    checker: SafetyChecker | None


class SharedBase:
    """The base model that draws: loaded for the first picture that is missing, and shared by all that is drawn with it."""

    def __init__(self) -> None:
        self._opened: Opened | None = None

    def open(self, config: Config, located: Located, processes: Processes, observe: Observer) -> Opened:
        """It and what belongs to it, loaded if they are not; another base, or another device, takes their place."""
        key = (located, config.model, config.generate.safety_checker)
        if self._opened is None or self._opened.key != key:
            self.free()
            observe(PhaseStarted("loading the libraries"))
            from cictl.engine.runtime import Runtime
            from cictl.workflow.base_model import open_base, open_checker

            runtime = Runtime.configured(config.model, processes)
            model = open_base(located, runtime, observe)
            self._opened = Opened(key, runtime, model, open_checker(config, model, observe))
        return self._opened

    def free(self) -> None:
        """Let go of it, so that its memory is another's."""
        self._opened = None
