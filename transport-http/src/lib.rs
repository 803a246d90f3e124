//! Syncline over HTTP: one WebSocket a connection, and REST for people and tools.
