"""`python -m graftline.cli`: the command where it is not installed, as in the images."""

from graftline.cli.app import main

main()
