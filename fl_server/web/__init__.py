"""What `fl_server.pages` shows: facts and plot made here, templates and style beside them."""
