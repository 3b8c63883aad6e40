"""What a run costs, measured from outside."""
