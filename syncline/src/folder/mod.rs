//! A folder and a replica kept equal, both ways.

pub mod apply;
pub mod checks;
pub mod conflict;
pub mod engine;
pub mod guard;
pub mod ignore;
pub mod key;
pub mod managed;
pub mod plan;
pub mod problem;
pub mod replica;
pub mod scan;
pub mod state;
pub mod watch;

#[cfg(test)]
mod tests;
