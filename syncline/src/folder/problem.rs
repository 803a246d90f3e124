//! What stands in the way of a folder, for `why`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::SystemTime,
};

/// One obstacle: what, why, since when, and the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// What it is about: a path in the folder, or the folder.
    pub subject: String,
    /// Why.
    pub cause: String,
    /// Since when.
    pub since: SystemTime,
    /// What to do.
    pub advice: String,
}

/// The most problems that are listed one by one; more are counted.
pub const MAX_LISTED: usize = 1000;

/// The problems of a folder, shared between the folder and whoever shows them.
#[derive(Debug, Clone, Default)]
pub struct Problems(Arc<Mutex<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    problems: BTreeMap<String, Problem>,
    left_out: u64,
}

impl Problems {
    fn with<T>(&self, change: impl FnOnce(&mut Listed) -> T) -> T {
        change(&mut self.0.lock().expect("nobody panics with the problems"))
    }

    /// Notes a problem; the same one keeps its time.
    pub fn raise(&self, subject: impl Into<String>, cause: impl Into<String>, advice: impl Into<String>) {
        let (subject, cause, advice) = (subject.into(), cause.into(), advice.into());
        self.with(|listed| {
            let known = listed.problems.get(&subject);
            if known.is_some_and(|problem| problem.cause == cause) {
                return;
            }
            if known.is_none() && listed.problems.len() >= MAX_LISTED {
                listed.left_out += 1;
                return;
            }
            tracing::warn!(%subject, %cause, %advice, "a problem in the folder");
            let since = SystemTime::now();
            listed.problems.insert(subject.clone(), Problem { subject, cause, since, advice });
        });
    }

    /// The problem is over.
    pub fn clear(&self, subject: &str) {
        self.with(|listed| listed.problems.remove(subject));
    }

    /// The problems for which `over` says so are over.
    pub fn clear_where(&self, over: impl Fn(&str) -> bool) {
        self.with(|listed| {
            listed.problems.retain(|subject, _| !over(subject));
            listed.left_out = 0;
        });
    }

    /// All problems.
    pub fn list(&self) -> Vec<Problem> {
        self.with(|listed| {
            let mut all: Vec<_> = listed.problems.values().cloned().collect();
            if listed.left_out > 0 {
                all.push(Problem {
                    subject: "the folder".into(),
                    cause: format!("{} more problems", listed.left_out),
                    since: SystemTime::now(),
                    advice: "solve some of those that are listed".into(),
                });
            }
            all
        })
    }
}
