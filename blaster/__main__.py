"""``python -m blaster``: the same as the ``blaster`` command."""

from blaster.cli import main

if __name__ == "__main__":
    main()
