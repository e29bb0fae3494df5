"""How a network is trained and judged: objective, step, loop, callbacks, evaluation."""
