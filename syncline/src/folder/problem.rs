//! What stands in the way of a folder, for `why`.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// When it is tried again by itself.
    pub next_try: Option<SystemTime>,
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
    /// Those that nothing has confirmed yet since the last look began.
    doubted: BTreeSet<String>,
    left_out: u64,
}

impl Problems {
    fn with<T>(&self, change: impl FnOnce(&mut Listed) -> T) -> T {
        change(&mut self.0.lock().expect("nobody panics with the problems"))
    }

    /// Notes a problem; the same one keeps its time.
    pub fn raise(&self, subject: impl Into<String>, cause: impl Into<String>, advice: impl Into<String>) {
        self.raise_until(subject, cause, advice, None);
    }

    /// The same, and says when it is tried again.
    pub fn raise_until(
        &self,
        subject: impl Into<String>,
        cause: impl Into<String>,
        advice: impl Into<String>,
        next_try: Option<SystemTime>,
    ) {
        let (subject, cause, advice) = (subject.into(), cause.into(), advice.into());
        self.with(|listed| {
            listed.doubted.remove(&subject);
            let is_full = listed.problems.len() - listed.doubted.len() >= MAX_LISTED;
            match listed.problems.get_mut(&subject) {
                Some(problem) if problem.cause == cause => {
                    problem.next_try = next_try;
                    return;
                }
                None if is_full => {
                    listed.left_out += 1;
                    return;
                }
                _ => {}
            }
            tracing::warn!(%subject, %cause, %advice, "a problem in the folder");
            let since = SystemTime::now();
            listed.problems.insert(subject.clone(), Problem { subject, cause, since, next_try, advice });
        });
    }

    /// A look at everything begins: the problems for which `of_the_look` says so are over when it ends
    /// ([`Problems::end_look`]), if it does not meet them again.
    pub fn begin_look(&self, of_the_look: impl Fn(&str) -> bool) {
        self.with(|listed| {
            listed.doubted = listed.problems.keys().filter(|subject| of_the_look(subject)).cloned().collect();
            listed.left_out = 0;
        });
    }

    /// The look is over.
    pub fn end_look(&self) {
        self.with(|listed| {
            for subject in std::mem::take(&mut listed.doubted) {
                listed.problems.remove(&subject);
            }
        });
    }

    /// The problem is over.
    pub fn clear(&self, subject: &str) {
        self.with(|listed| listed.problems.remove(subject));
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
                    next_try: None,
                    advice: "solve some of those that are listed".into(),
                });
            }
            all
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_everything_ends_what_it_does_not_meet_and_keeps_since_when_the_others_are() {
        let problems = Problems::default();
        for subject in ["solved", "still there", "of something else"] {
            problems.raise(subject, "cause", "advice");
        }
        let before = problems.list();
        problems.begin_look(|subject| subject != "of something else");
        assert_eq!(problems.list(), before, "a problem is not over because a look has begun");
        problems.raise("still there", "cause", "advice");
        problems.end_look();
        assert_eq!(problems.list(), [before[0].clone(), before[2].clone()]);
        assert_eq!(
            problems.list().iter().map(|problem| &problem.subject[..]).collect::<Vec<_>>(),
            ["of something else", "still there"]
        );
    }

    #[test]
    fn more_problems_than_are_listed_are_counted() {
        let problems = Problems::default();
        for n in 0..MAX_LISTED + 3 {
            problems.raise(format!("{n:05}"), "cause", "advice");
        }
        let list = problems.list();
        assert_eq!((list.len(), &list[MAX_LISTED].cause[..]), (MAX_LISTED + 1, "3 more problems"));
    }
}
