"""``python -m tuneahead`` is the command line."""

from tuneahead.cli import main

if __name__ == "__main__":
    main()
