"""Rules about clients, requests and replies, and the bounded state behind them."""
