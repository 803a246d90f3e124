//! Sets of groups. A group is 16 KiB of content, the smallest piece that the outboard proves,
//! so everything that is asked for, received, stored and served is counted in whole groups.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};

/// Bytes of a group; the last group of a content may be shorter.
pub const GROUP_LEN: u64 = 16 * 1024;

/// How many groups content of `len` bytes has. Empty content has one, of no bytes: it too must
/// be proved.
pub fn group_count(len: u64) -> u64 {
    len.div_ceil(GROUP_LEN).max(1)
}

/// The groups that hold the bytes of `range`. An empty range has none.
pub fn covering(range: Range<u64>) -> Range<u64> {
    if range.is_empty() { 0..0 } else { range.start / GROUP_LEN..range.end.div_ceil(GROUP_LEN) }
}

/// The bytes of `groups` in content of `len` bytes.
pub fn byte_range(groups: &Range<u64>, len: u64) -> Range<u64> {
    let edge = |group: u64| group.saturating_mul(GROUP_LEN).min(len);
    edge(groups.start)..edge(groups.end)
}

/// A set of groups as sorted, disjoint runs that do not touch: one set has one form.
#[derive(Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<(u64, u64)>", into = "Vec<(u64, u64)>")]
pub struct GroupRanges(Vec<Range<u64>>);

impl GroupRanges {
    /// No groups.
    pub const fn empty() -> Self {
        Self(Vec::new())
    }

    /// All groups of content of `len` bytes.
    pub fn all(len: u64) -> Self {
        Self::from(0..group_count(len))
    }

    /// The runs, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().cloned()
    }

    /// How many runs there are.
    pub fn runs(&self) -> usize {
        self.0.len()
    }

    /// How many groups are in the set.
    pub fn count(&self) -> u64 {
        self.0.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether no group is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One past the last group, 0 when empty.
    pub fn end(&self) -> u64 {
        self.0.last().map_or(0, |run| run.end)
    }

    /// Whether every group of `range` is in the set.
    pub fn contains(&self, range: &Range<u64>) -> bool {
        if range.is_empty() {
            return true;
        }
        let at = self.0.partition_point(|run| run.end <= range.start);
        self.0.get(at).is_some_and(|run| run.start <= range.start && range.end <= run.end)
    }

    /// Adds the groups of `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        // Runs that touch the new one melt into it.
        let first = self.0.partition_point(|run| run.end < range.start);
        let last = self.0.partition_point(|run| run.start <= range.end);
        let melted = self.0[first..last].iter().fold(range, |a, b| a.start.min(b.start)..a.end.max(b.end));
        self.0.splice(first..last, std::iter::once(melted));
    }

    /// Takes the groups of `range` out.
    pub fn remove(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.0.partition_point(|run| run.end <= range.start);
        let last = self.0.partition_point(|run| run.start < range.end);
        if first >= last {
            return;
        }
        let before = self.0[first].start..range.start;
        let after = range.end..self.0[last - 1].end;
        self.0.splice(first..last, [before, after].into_iter().filter(|run| !run.is_empty()));
    }

    /// What is in this set and not in `other`.
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for run in other.iter() {
            result.remove(run);
        }
        result
    }

    /// What is in this set or in `other`.
    pub fn union(&self, other: &Self) -> Self {
        let mut result = self.clone();
        for run in other.iter() {
            result.insert(run);
        }
        result
    }

    /// What is in both.
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }

    /// How many bytes the set is of content of `len` bytes.
    pub fn byte_count(&self, len: u64) -> u64 {
        self.0.iter().map(|run| byte_range(run, len)).map(|bytes| bytes.end - bytes.start).sum()
    }
}

impl From<Range<u64>> for GroupRanges {
    fn from(range: Range<u64>) -> Self {
        let mut set = Self::empty();
        set.insert(range);
        set
    }
}

impl From<GroupRanges> for Vec<(u64, u64)> {
    fn from(set: GroupRanges) -> Self {
        set.0.into_iter().map(|run| (run.start, run.end)).collect()
    }
}

/// The bounds are not sorted, disjoint, apart and non-empty.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the runs of a set of groups must be sorted, apart and not empty")]
pub struct MalformedRanges;

impl TryFrom<Vec<(u64, u64)>> for GroupRanges {
    type Error = MalformedRanges;

    fn try_from(runs: Vec<(u64, u64)>) -> Result<Self, MalformedRanges> {
        let sound = runs.iter().all(|(start, end)| start < end) && runs.windows(2).all(|pair| pair[0].1 < pair[1].0);
        if sound { Ok(Self(runs.into_iter().map(|(start, end)| start..end).collect())) } else { Err(MalformedRanges) }
    }
}

impl fmt::Debug for GroupRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}
