"""The topic catalogue: which topics exist, who writes them, how they are kept. Data only."""
