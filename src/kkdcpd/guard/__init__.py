"""Who may pass, and with what: pure rules and bounded state. What is refused is told by values.Rule."""
