"""`python -m cotbench`: the command line, for launchers that start a module in several processes."""

from cotbench.cli import main

if __name__ == "__main__":
    main()
