"""Programs that measure; each prints a table and one line of JSON. Nothing imports them."""
