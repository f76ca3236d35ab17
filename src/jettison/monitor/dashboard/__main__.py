"""`python -m jettison.monitor.dashboard SETTINGS`: the process that makes the pages, behind a socket."""

import sys

from jettison.monitor.dashboard.child import main

if __name__ == "__main__":
    main(sys.argv[1])
