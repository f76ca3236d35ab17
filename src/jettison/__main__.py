"""`python -m jettison`: the `jettison` command without its script."""

from jettison.cli.main import main

if __name__ == "__main__":
    main()
