//! A folder and a replica kept equal, both ways. No version that a user typed disappears.
//!
//! | module | what it is |
//! |---|---|
//! | [`key`] | files and their keys; companion keys |
//! | [`plan`] | what to do about one file: pure decisions, and the rules of conflicts |
//! | [`conflict`] | the names of kept versions |
//! | [`guard`] | mass deletions are asked about |
//! | [`checks`], [`lock`] | which directories can be shared; one program a folder |
//! | [`ignore`], [`scan`], [`watch`] | the eyes: what is there, what has changed |
//! | [`state`] | what was on disk at the last look, over restarts and kills |
//! | [`apply`] | the hands: files are replaced whole, and never one that just changed; `left`: what a kill leaves |
//! | [`engine`] | the thread that does it, with `look`, `rounds`, `put` and `write` |
//! | [`replica`], [`managed`] | what the folder needs of a replica, and the manager's |
//! | [`problem`] | what stands in its way, for `why` |
//!
//! Deliberately absent: times, owners and empty directories of the disk are not kept; hard links
//! become separate files; names that differ only in case are different files.

pub mod apply;
pub mod checks;
pub mod conflict;
pub mod engine;
pub mod guard;
pub mod ignore;
pub mod key;
mod left;
pub mod lock;
mod look;
pub mod managed;
pub mod plan;
pub mod problem;
mod put;
pub mod replica;
mod rounds;
pub mod scan;
pub mod state;
pub mod watch;
mod write;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod vectors;
