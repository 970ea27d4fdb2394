"""`python -m edgeinfer`, and the program `edgeinfer`."""

import sys

from edgeinfer.watchdog import early

early.hold(sys.argv[1:])

from edgeinfer.cli import main  # noqa: E402 (not before signals are held back)

if __name__ == "__main__":
    main()
