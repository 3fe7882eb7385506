"""The policy server: a generator (and a tracker) behind a websocket, for cells whose GPU is elsewhere."""
