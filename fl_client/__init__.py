"""The device's side: its faces, its training under its own privacy ledger, its camera loop."""
