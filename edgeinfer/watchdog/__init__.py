"""Whether the daemon is alive: heartbeats, who judges them, how a process ends, and who starts it again."""
