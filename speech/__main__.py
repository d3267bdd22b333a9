"""`python -m speech` is the `speech` command."""

from speech.cli import main

if __name__ == "__main__":
    main()
