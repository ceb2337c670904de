"""Programs that measure; each prints tables, and most end with one line of JSON. The product imports none of them."""
