"""A thread of the data path."""

from __future__ import annotations

import logging
import threading

from edgeinfer.watchdog.hearts import Heart

log = logging.getLogger(__name__)


class Stage(threading.Thread):
    """Beats its heart while it lives. `error` is what ended it, if anything did; the process can't go on then."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.error: BaseException | None = None
        self.heart = Heart(name)

    def run(self) -> None:
        """The thread's life."""
        try:
            self.live()
        except BaseException as error:  # whatever it is, the main thread must hear of it
            log.debug("%s ended", self.name, exc_info=True)
            self.error = error
        finally:
            self.heart.rest()

    def live(self) -> None:
        """What the stage does until its end."""
        raise NotImplementedError
