"""`python -m aunet` is the `aunet` command."""

from aunet.cli import main

if __name__ == "__main__":
    main()
