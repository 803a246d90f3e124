//! A folder and a replica kept equal, both ways.

pub mod apply;
pub mod conflict;
pub mod guard;
pub mod ignore;
pub mod key;
pub mod plan;
pub mod scan;
pub mod state;
