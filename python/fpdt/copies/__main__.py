"""`python -m fpdt.copies`: what the set-up runs."""

from __future__ import annotations

from fpdt.copies.build import main

main()
