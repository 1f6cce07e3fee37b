"""What the command line does besides serving, one command a module. Only `cli` knows of them."""
