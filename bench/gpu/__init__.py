"""One GPU's nine minutes: steps in processes of their own, and what compares them; see README.md beside this file."""
