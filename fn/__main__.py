"""`python -m fn`, and the entry of the packed file."""

from fn.cli import main

if __name__ == "__main__":
    main()
