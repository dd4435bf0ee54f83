"""`python -m ambit`."""

from ambit.cli.main import main

main()
