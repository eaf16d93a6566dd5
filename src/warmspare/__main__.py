"""`python -m warmspare` is `warmspare`."""

from warmspare.cli.main import main

if __name__ == "__main__":
    main()
