"""From a source to the mailbox: one thread reads; another watches it, and opens the source again where it fails."""

from edgeinfer.flow.capture.job import Deadlines, Hung, Job
from edgeinfer.flow.capture.ladder import CaptureThread

__all__ = ["CaptureThread", "Deadlines", "Hung", "Job"]
