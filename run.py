"""Start the server from a checkout: the same as `lyftr-server serve`."""

import sys

from lyftr_server.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
