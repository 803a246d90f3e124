//! The guard against deletions that nobody meant.
//!
//! A folder that is suddenly empty, unmounted or moved away must not empty every other device.
//! When more than half of at least [`FEWEST`] files are gone at once, nothing is deleted
//! elsewhere until the user says so or the files are back.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The guard does not ask about folders with fewer files.
pub const FEWEST: usize = 20;

/// So many deletions may pass without waiting: fewer than half of the smallest guarded folder.
const FREE: usize = FEWEST / 2;

/// In a large folder this part of it may pass without waiting.
const FREE_PART: usize = 64;

/// Deletions within this time count as one event.
const WINDOW: Duration = Duration::from_secs(30);

/// When more files than are free went within the window, further deletions wait until no file
/// went for this long, so that all of them are judged together.
pub const QUIET: Duration = Duration::from_millis(400);

/// What to do with files that are gone from disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Delete them everywhere.
    Pass,
    /// More may be going: ask again at this time.
    WaitUntil(Instant),
    /// Stop and ask the user.
    Hold {
        /// How many are gone.
        gone: usize,
        /// Of how many.
        of: usize,
    },
}

/// Whether the user said that a mass deletion is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Ask.
    Ask,
    /// `--allow-mass-delete`.
    Given,
}

/// Counts the files that went.
#[derive(Debug)]
pub struct Guard {
    permission: Permission,
    /// When deletions passed, and how many.
    passed: VecDeque<(Instant, usize)>,
    /// The number that was gone at the last judgement, and since when it is the same.
    last: Option<(usize, Instant)>,
}

impl Guard {
    /// A guard.
    pub fn new(permission: Permission) -> Self {
        Self { permission, passed: VecDeque::new(), last: None }
    }

    /// Judges `gone` of `known` files that the folder should have. `same_root` is false when the
    /// folder is not the directory that it was: a mount point without its mount, say.
    pub fn judge(&mut self, now: Instant, gone: usize, known: usize, same_root: bool) -> Verdict {
        while self.passed.front().is_some_and(|(at, _)| now.duration_since(*at) > WINDOW) {
            self.passed.pop_front();
        }
        if gone == 0 {
            self.last = None;
            return Verdict::Pass;
        }
        if self.permission == Permission::Given {
            return Verdict::Pass;
        }
        let recently: usize = self.passed.iter().map(|(_, count)| count).sum();
        let (all_gone, of) = (gone + recently, known + recently);
        if !same_root && all_gone * 2 > of {
            return Verdict::Hold { gone: all_gone, of };
        }
        if all_gone > FREE.max(of / FREE_PART) && of >= FEWEST {
            if all_gone * 2 > of {
                self.last = None;
                return Verdict::Hold { gone: all_gone, of };
            }
            let since = match self.last {
                Some((count, since)) if count == gone => since,
                _ => now,
            };
            self.last = Some((gone, since));
            if now < since + QUIET {
                return Verdict::WaitUntil(since + QUIET);
            }
        }
        self.last = None;
        self.passed.push_back((now, gone));
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> (Guard, Instant) {
        (Guard::new(Permission::Ask), Instant::now())
    }

    #[test]
    fn half_of_twenty_files_may_go_and_one_more_is_asked_about() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 10, 20, true), Verdict::Pass);
        let (mut guard, now) = self::guard();
        assert_eq!(guard.judge(now, 11, 20, true), Verdict::Hold { gone: 11, of: 20 });
    }

    #[test]
    fn nineteen_files_may_all_go() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 19, 19, true), Verdict::Pass);
    }

    #[test]
    fn files_that_go_little_by_little_count_together() {
        let (mut guard, now) = guard();
        let step = Duration::from_millis(50);
        assert_eq!(guard.judge(now, 5, 40, true), Verdict::Pass);
        assert_eq!(guard.judge(now + step, 5, 35, true), Verdict::Pass);
        // From here on they wait for quiet, and so are seen together.
        assert_eq!(guard.judge(now + 2 * step, 5, 30, true), Verdict::WaitUntil(now + 2 * step + QUIET));
        assert_eq!(guard.judge(now + 3 * step, 10, 30, true), Verdict::WaitUntil(now + 3 * step + QUIET));
        assert_eq!(guard.judge(now + 4 * step, 20, 30, true), Verdict::Hold { gone: 30, of: 40 });
    }

    #[test]
    fn less_than_half_passes_once_it_is_quiet() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 100, 1000, true), Verdict::WaitUntil(now + QUIET));
        assert_eq!(guard.judge(now + QUIET, 100, 1000, true), Verdict::Pass);
    }

    #[test]
    fn single_deletions_in_a_large_folder_never_wait() {
        let (mut guard, now) = guard();
        for count in 0..100 {
            assert_eq!(guard.judge(now + Duration::from_millis(count), 1, 10_000, true), Verdict::Pass);
        }
    }

    #[test]
    fn deletions_of_long_ago_do_not_count() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 10, 25, true), Verdict::Pass);
        assert_eq!(guard.judge(now + WINDOW + QUIET, 5, 15, true), Verdict::Pass);
    }

    #[test]
    fn another_directory_in_its_place_is_asked_about_at_any_size() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 3, 3, false), Verdict::Hold { gone: 3, of: 3 });
        assert_eq!(guard.judge(now, 1, 3, false), Verdict::Pass);
    }

    #[test]
    fn files_that_come_back_end_the_question() {
        let (mut guard, now) = guard();
        assert_eq!(guard.judge(now, 30, 40, true), Verdict::Hold { gone: 30, of: 40 });
        assert_eq!(guard.judge(now, 0, 40, true), Verdict::Pass);
        assert_eq!(guard.judge(now, 2, 40, true), Verdict::Pass);
    }

    #[test]
    fn with_permission_everything_passes() {
        let mut guard = Guard::new(Permission::Given);
        assert_eq!(guard.judge(Instant::now(), 500, 500, true), Verdict::Pass);
    }
}
