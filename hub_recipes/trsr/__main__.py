"""`python -m trsr`."""

from trsr.cli import main

if __name__ == "__main__":
    main()
