"""The client port: a listening socket, HTTP/1.1 as callbacks, and nothing of what is asked or answered."""
