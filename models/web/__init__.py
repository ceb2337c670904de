"""The camera page: what the browser gets, shared by `fl-server` and by `fl-client webcam --serve`."""
