"""Hearts, who judges them, the last words, the record of a crash, the supervisor."""
