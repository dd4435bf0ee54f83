"""`python -m ambit`."""

from ambit.cli.entry import main

main()
