"""Memory that all processes of one service share: its areas, and the kinds of tables in them."""
