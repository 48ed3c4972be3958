"""How good an agent is: full games, scores, published references, videos, agents in use."""
