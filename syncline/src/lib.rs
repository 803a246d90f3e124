//! The `syncline` program as a library.
//!
//! | module | what it is |
//! |---|---|
//! | [`cli`] | the command line and its help |
//! | [`commands`] | the verbs: arguments to questions, answers to text |
//! | [`daemon`] | `up`: the node that keeps running |
//! | [`socket`], [`request`] | how commands talk to it |
//! | [`node`] | store, manager, transports and folders together; answers the questions |
//! | [`folder`] | a folder and a replica kept equal, both ways |
//! | [`contents`] | values to files of a folder |
//! | [`rest`] | what the REST surface reads from |
//! | [`data_dir`], [`made`] | the data directory: lock and settings; what is taken back after an error |
//! | [`output`], [`progress`], [`error`], [`text`] | what people see |

pub mod cli;
pub mod commands;
pub mod contents;
pub mod daemon;
pub mod data_dir;
pub mod error;
pub mod folder;
pub mod made;
pub mod node;
pub mod output;
pub mod progress;
pub mod request;
pub mod rest;
pub mod socket;
pub mod text;

/// The programs in the README compile and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[cfg(test)]
#[path = "../../vectors/golden.rs"]
mod golden;
#[cfg(test)]
mod vectors;
