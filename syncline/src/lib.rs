//! The `syncline` program as a library: the folder, the daemon and the commands.

pub mod folder;
