"""The API gateway: REST, WebSocket, and the only door clients use."""
