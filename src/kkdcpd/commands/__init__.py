"""The commands of the command line besides `serve`, a module for each. Only `cli` imports them."""
