"""Translation: requests to what the gate takes, answers to what clients expect. No decisions."""
