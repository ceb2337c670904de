"""Many devices on one machine, running the same ClientApp and ServerApp as deployment."""
