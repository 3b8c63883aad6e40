"""What the steps of sizes.json do; each module has `run(context)`."""
