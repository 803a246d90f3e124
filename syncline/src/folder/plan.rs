//! What to do about one file: pure decisions.
//!
//! Three things are compared: the *disk* (what is there now), the *base* (which version was on
//! disk when the program last looked) and the *view* (what the replica holds at the key). The
//! answer is one [`Step`]; after it is done the question is asked again, until the answer is
//! [`Step::Rest`]. So a crash between any two steps needs no repair of its own.
//!
//! The promise: no version that a user typed disappears.
//! - What is on disk and differs from the base is put into the replica before anything else.
//! - The newest version wins at its name. When it does not *succeed* a version whose author is
//!   this node, this node keeps its own under another name.
//! - A deletion that had not seen this node's version does not remove it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sync_core::model::{AuthorId, Hash, Timestamp};

/// Which versions were seen: by author, the newest timestamp.
pub type Seen = BTreeMap<AuthorId, Timestamp>;

/// Names a version of a file. Versions are ordered by time, then author.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId {
    /// When it was written.
    pub timestamp: Timestamp,
    /// Who wrote it.
    pub author: AuthorId,
}

/// What kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A regular file that its owner may execute.
    Executable,
    /// A symbolic link; its bytes are the target.
    Link,
}

/// What a version says the file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fact {
    /// Its kind.
    pub kind: Kind,
    /// Its length in bytes.
    pub len: u64,
    /// BLAKE3 of its bytes.
    pub hash: Hash,
}

/// A version of a file in the replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its name.
    pub id: VersionId,
    /// What the file is.
    pub fact: Fact,
    /// What its author has seen, as far as written down.
    pub seen: Seen,
}

impl Version {
    /// What this version was made in the knowledge of, itself included. A version cannot have
    /// seen what is newer than itself: such lines are its author's later knowledge.
    pub fn knowledge(&self) -> Seen {
        let mut seen = self.seen.clone();
        seen.retain(|_, timestamp| *timestamp < self.id.timestamp);
        seen.insert(self.id.author, self.id.timestamp);
        seen
    }

    /// Whether this version replaces `other` knowingly: same author, or made after having seen it.
    pub fn succeeds(&self, other: &VersionId) -> bool {
        self.knowledge().get(&other.author).is_some_and(|timestamp| *timestamp >= other.timestamp)
    }
}

/// The newest deletion of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// Who and when.
    pub id: VersionId,
    /// What had been seen by it.
    pub seen: Seen,
}

impl Deletion {
    /// Whether the deletion was made in the knowledge of `other`.
    pub fn succeeds(&self, other: &VersionId) -> bool {
        self.id.author == other.author
            || self.seen.get(&other.author).is_some_and(|timestamp| *timestamp >= other.timestamp)
    }
}

/// What the replica holds for a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Each author's version, newest first.
    pub versions: Vec<Version>,
    /// The newest deletion, whether or not there are versions newer than it.
    pub deletion: Option<Deletion>,
    /// What this node has written down as seen by its versions, whether or not one is still there.
    pub noted: Seen,
    /// The versions that took the name while this node kept its own under another one. They were not seen by that:
    /// nobody need have looked at them, and they may not even be here.
    pub answered: Seen,
    /// Whether this node's companion says executable.
    pub marked_executable: bool,
}

impl View {
    /// The version that the name shows.
    pub fn newest(&self) -> Option<&Version> {
        self.versions.first()
    }

    /// The version that took the name from this node's version `mine` without having seen it, if that was not
    /// answered yet.
    pub fn winner_over(&self, me: AuthorId, mine: VersionId, fact: Fact) -> Option<VersionId> {
        let newest = self.newest()?;
        let takes = newest.id.author != me && newest.id > mine && newest.fact != fact && !newest.succeeds(&mine);
        let answered = self.answered.get(&newest.id.author).is_some_and(|answered| *answered >= newest.id.timestamp);
        (takes && !answered).then_some(newest.id)
    }

    /// The version of an author.
    pub fn by(&self, author: AuthorId) -> Option<&Version> {
        self.versions.iter().find(|version| version.id.author == author)
    }
}

/// The version that was on disk at the last look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its name.
    pub id: VersionId,
    /// What the file was.
    pub fact: Fact,
    /// What it was made in the knowledge of, itself included.
    pub knowledge: Seen,
}

impl Base {
    /// The base once `version` is on disk.
    pub fn of(version: &Version) -> Self {
        Self { id: version.id, fact: version.fact, knowledge: version.knowledge() }
    }

    /// What a change of this node on top of this base must write down: nothing when the base is
    /// its own, for then its earlier notes still hold.
    fn to_write_down(&self, me: AuthorId) -> Seen {
        if self.id.author == me {
            return Seen::new();
        }
        let mut seen = self.knowledge.clone();
        seen.remove(&me);
        seen
    }
}

/// What was found on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Nothing.
    Absent,
    /// A file or link.
    Found(Found),
    /// The file cannot be there: a directory has its name, or its parent is no directory.
    Blocked,
    /// Something that is not shared has its name: a device, a pipe, a link out of the folder. That the user put it
    /// there does not say that the file is to go elsewhere.
    Refused,
}

impl Disk {
    fn is_in_the_way(&self) -> bool {
        matches!(self, Self::Blocked | Self::Refused)
    }
}

/// A file on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Its kind.
    pub kind: Kind,
    /// Its length.
    pub len: u64,
    /// Its hash; none when no known version has this length, so that the bytes need not be read.
    pub hash: Option<Hash>,
}

impl Found {
    /// Whether it is this file.
    pub fn is(&self, fact: &Fact) -> bool {
        self.kind == fact.kind && self.len == fact.len && self.hash == Some(fact.hash)
    }
}

/// Whether this node writes what its user changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Both ways.
    ReadWrite,
    /// The folder follows the replica.
    ReadOnly,
}

/// What to do next about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Rest,
    /// The disk holds this version already: note it.
    Adopt(Version),
    /// Put what is on disk into the replica, noting what it was made in the knowledge of.
    Import {
        /// To be written down with it; empty when nothing new.
        seen: Seen,
    },
    /// Delete in the replica what was deleted on disk.
    Delete {
        /// To be written down with it.
        seen: Seen,
    },
    /// Put this node's version under another name, and note that `instead_of` was answered so.
    Keep {
        /// The version to keep.
        mine: VersionId,
        /// What it is.
        fact: Fact,
        /// The version that won the name.
        winner: VersionId,
    },
    /// Write the version to disk.
    Write(Version),
    /// Remove the file from disk.
    Remove,
    /// Forget the base: the file is gone on both sides.
    Forget,
    /// Move what is on disk aside: it cannot be put, and another version must be written.
    SetAside,
    /// A version cannot be written because something is in its way.
    Clash,
}

/// What to do next about a file.
pub fn decide(me: AuthorId, mode: Mode, base: Option<&Base>, disk: &Disk, view: &View) -> Step {
    let newest = view.newest();
    match (base, disk) {
        (None, Disk::Found(found)) => {
            // Base lost, or the same file came in by another way: any version that is the same will do.
            if let Some(same) = view.versions.iter().find(|version| found.is(&version.fact)) {
                return Step::Adopt(same.clone());
            }
            if mode == Mode::ReadWrite
                && let Some(mine) = put_meanwhile(me, None, view)
            {
                return mine;
            }
            return changed(mode, newest, Seen::new());
        }
        (Some(base), Disk::Found(found)) if !found.is(&base.fact) => {
            if let Some(same) = newest.filter(|version| found.is(&version.fact) && version.id != base.id) {
                return Step::Adopt(same.clone());
            }
            // A version of our own that was put just before the program was killed.
            if let Some(mine) = view.by(me).filter(|mine| found.is(&mine.fact) && mine.id > base.id) {
                return Step::Adopt(mine.clone());
            }
            if mode == Mode::ReadWrite
                && let Some(mine) = put_meanwhile(me, Some(base), view)
            {
                return mine;
            }
            let unseen = newest.filter(|version| version.id != base.id);
            return changed(mode, unseen, base.to_write_down(me));
        }
        (Some(base), Disk::Absent | Disk::Blocked | Disk::Refused) => {
            return match newest {
                None => Step::Forget,
                Some(_) if *disk == Disk::Refused => Step::Clash,
                Some(_) if *disk == Disk::Blocked && mode == Mode::ReadOnly => Step::Clash,
                // Somebody changed it meanwhile: an edit is worth more than a deletion.
                Some(newest) if newest.id > base.id && *disk == Disk::Absent => Step::Write(newest.clone()),
                Some(newest) if newest.id > base.id => Step::Clash,
                Some(newest) if mode == Mode::ReadOnly => Step::Write(newest.clone()),
                Some(_) => Step::Delete { seen: base.to_write_down(me) },
            };
        }
        (None, Disk::Absent | Disk::Blocked | Disk::Refused) | (Some(_), Disk::Found(_)) => {}
    }
    unchanged(me, mode, base, disk, view)
}

/// This node's version in the replica was never on disk: a command put it while the program was off. An import
/// would take its place, so it is kept under another name first.
fn put_meanwhile(me: AuthorId, base: Option<&Base>, view: &View) -> Option<Step> {
    let mine = view.by(me)?;
    let is_base = base.is_some_and(|base| base.id >= mine.id || base.fact == mine.fact);
    let is_kept = view.answered.get(&me).is_some_and(|answered| *answered >= mine.id.timestamp);
    (!is_base && !is_kept).then_some(Step::Keep { mine: mine.id, fact: mine.fact, winner: mine.id })
}

/// The disk differs from the base.
fn changed(mode: Mode, unseen: Option<&Version>, seen: Seen) -> Step {
    match (mode, unseen) {
        (Mode::ReadWrite, _) => Step::Import { seen },
        (Mode::ReadOnly, Some(_)) => Step::SetAside,
        (Mode::ReadOnly, None) => Step::Rest,
    }
}

/// The disk is as the base says.
fn unchanged(me: AuthorId, mode: Mode, base: Option<&Base>, disk: &Disk, view: &View) -> Step {
    let Some(newest) = view.newest() else {
        let Some(base) = base else { return Step::Rest };
        // One that is older than the version on disk was not of that, whatever became of the version.
        let newer = view.deletion.as_ref().filter(|deletion| deletion.id > base.id);
        let known = newer.is_some_and(|deletion| base.id.author != me || deletion.succeeds(&base.id));
        return match mode {
            _ if known => Step::Remove,
            Mode::ReadWrite => Step::Import { seen: Seen::new() },
            // It cannot be put again, and nobody else may have it.
            Mode::ReadOnly if base.id.author == me => Step::SetAside,
            Mode::ReadOnly => Step::Remove,
        };
    };
    // A deletion may have taken this node's version out of the replica; it is still on disk then.
    let in_replica = view.by(me).map(|mine| (mine.id, mine.fact));
    let on_disk = base.filter(|base| base.id.author == me).map(|base| (base.id, base.fact));
    match mode {
        Mode::ReadWrite => {
            if let Some((mine, fact)) = in_replica.or(on_disk)
                && let Some(winner) = view.winner_over(me, mine, fact)
            {
                return Step::Keep { mine, fact, winner };
            }
        }
        // It cannot be kept in the replica; so it is here.
        Mode::ReadOnly => {
            let loses =
                |(mine, fact)| view.winner_over(me, mine, fact).is_some() || newest.id < mine && newest.fact != fact;
            if on_disk.is_some_and(loses) {
                return Step::SetAside;
            }
        }
    }
    match (base, disk) {
        (Some(base), _) if base.id == newest.id => Step::Rest,
        // The replica does not know the version on disk any more, and nobody deleted it.
        (Some(base), _) if newest.id < base.id && mode == Mode::ReadWrite => {
            Step::Import { seen: base.to_write_down(me) }
        }
        (_, Disk::Found(found)) if found.is(&newest.fact) => Step::Adopt(newest.clone()),
        (_, disk) if disk.is_in_the_way() => Step::Clash,
        _ => Step::Write(newest.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(n: u8) -> AuthorId {
        AuthorId::from([n; 32])
    }

    fn id(n: u8, timestamp: u64) -> VersionId {
        VersionId { timestamp: Timestamp(timestamp), author: author(n) }
    }

    fn fact(content: &str) -> Fact {
        Fact { kind: Kind::File, len: content.len() as u64, hash: Hash(*blake3::hash(content.as_bytes()).as_bytes()) }
    }

    fn seen(lines: &[(u8, u64)]) -> Seen {
        lines.iter().map(|&(n, timestamp)| (author(n), Timestamp(timestamp))).collect()
    }

    fn version(n: u8, timestamp: u64, content: &str, lines: &[(u8, u64)]) -> Version {
        Version { id: id(n, timestamp), fact: fact(content), seen: seen(lines) }
    }

    fn on_disk(content: &str) -> Disk {
        let fact = fact(content);
        Disk::Found(Found { kind: fact.kind, len: fact.len, hash: Some(fact.hash) })
    }

    fn view(mut versions: Vec<Version>) -> View {
        versions.sort_by_key(|version| std::cmp::Reverse(version.id));
        // The node under test is author 1; what it wrote down stands with its version.
        let noted = versions.iter().find(|version| version.id.author == author(1));
        let noted = noted.map(|version| version.seen.clone()).unwrap_or_default();
        View { versions, noted, ..View::default() }
    }

    fn answered(lines: &[(u8, u64)], view: View) -> View {
        View { answered: seen(lines), ..view }
    }

    fn deleted(n: u8, timestamp: u64, lines: &[(u8, u64)], versions: Vec<Version>) -> View {
        View { deletion: Some(Deletion { id: id(n, timestamp), seen: seen(lines) }), ..view(versions) }
    }

    /// The node under test is author 1.
    fn decided(base: Option<&Version>, disk: Disk, view: &View) -> Step {
        decide(author(1), Mode::ReadWrite, base.map(Base::of).as_ref(), &disk, view)
    }

    fn decided_read_only(base: Option<&Version>, disk: Disk, view: &View) -> Step {
        decide(author(1), Mode::ReadOnly, base.map(Base::of).as_ref(), &disk, view)
    }

    #[test]
    fn a_new_file_is_imported_and_nothing_is_written_down() {
        assert_eq!(decided(None, on_disk("a"), &view(vec![])), Step::Import { seen: seen(&[]) });
    }

    #[test]
    fn a_new_version_of_another_is_written_to_disk() {
        let theirs = version(2, 10, "theirs", &[]);
        assert_eq!(decided(None, Disk::Absent, &view(vec![theirs.clone()])), Step::Write(theirs.clone()));
        let newer = version(2, 20, "newer", &[]);
        assert_eq!(decided(Some(&theirs), on_disk("theirs"), &view(vec![newer.clone()])), Step::Write(newer));
    }

    #[test]
    fn nothing_changed_means_nothing_to_do() {
        let mine = version(1, 10, "a", &[]);
        assert_eq!(decided(Some(&mine), on_disk("a"), &view(vec![mine.clone()])), Step::Rest);
        assert_eq!(decided(None, Disk::Absent, &view(vec![])), Step::Rest);
    }

    #[test]
    fn a_file_that_is_equal_already_is_adopted_without_a_write() {
        let theirs = version(2, 10, "same", &[]);
        assert_eq!(decided(None, on_disk("same"), &view(vec![theirs.clone()])), Step::Adopt(theirs));
    }

    #[test]
    fn an_edit_of_ones_own_version_writes_nothing_down() {
        let mine = version(1, 10, "a", &[(2, 5)]);
        assert_eq!(decided(Some(&mine), on_disk("b"), &view(vec![mine.clone()])), Step::Import { seen: seen(&[]) });
    }

    #[test]
    fn an_edit_of_anothers_version_writes_down_what_it_has_seen() {
        let theirs = version(2, 10, "a", &[(3, 5)]);
        let step = decided(Some(&theirs), on_disk("b"), &view(vec![theirs.clone()]));
        assert_eq!(step, Step::Import { seen: seen(&[(2, 10), (3, 5)]) });
    }

    #[test]
    fn a_local_edit_is_imported_before_a_newer_version_is_written() {
        let (theirs, newer) = (version(2, 10, "a", &[]), version(2, 20, "newer", &[]));
        let step = decided(Some(&theirs), on_disk("mine"), &view(vec![newer]));
        assert_eq!(step, Step::Import { seen: seen(&[(2, 10)]) });
    }

    #[test]
    fn when_both_changed_the_losing_author_keeps_its_own_version() {
        let mine = version(1, 10, "mine", &[]);
        let theirs = version(2, 20, "theirs", &[]);
        let both = view(vec![mine.clone(), theirs.clone()]);
        let keep = Step::Keep { mine: mine.id, fact: mine.fact, winner: theirs.id };
        assert_eq!(decided(Some(&mine), on_disk("mine"), &both), keep);
        // The winner's author has nothing to do, and neither has a third.
        let at = |n| decide(author(n), Mode::ReadWrite, Some(&Base::of(&theirs)), &on_disk("theirs"), &both);
        assert_eq!(at(2), Step::Rest);
        assert_eq!(at(3), Step::Rest);
    }

    #[test]
    fn a_kept_version_is_not_kept_again_even_if_the_base_was_lost() {
        let mine = version(1, 10, "mine", &[]);
        let theirs = version(2, 20, "theirs", &[]);
        let both = answered(&[(2, 20)], view(vec![mine.clone(), theirs.clone()]));
        assert_eq!(decided(Some(&mine), on_disk("mine"), &both), Step::Write(theirs.clone()));
        assert_eq!(decided(None, on_disk("mine"), &both), Step::Adopt(mine));
        assert_eq!(decided(None, on_disk("theirs"), &both), Step::Adopt(theirs));
    }

    #[test]
    fn my_version_is_kept_when_a_file_was_deleted_and_made_again_without_having_seen_it() {
        // The deletion took our version out of the replica, and a new file came after it.
        let mine = version(1, 10, "mine", &[]);
        let again = version(2, 30, "again", &[]);
        let mut there = deleted(2, 20, &[], vec![again.clone()]);
        let keep = Step::Keep { mine: mine.id, fact: mine.fact, winner: again.id };
        assert_eq!(decided(Some(&mine), on_disk("mine"), &there), keep);
        there.answered = seen(&[(2, 30)]);
        assert_eq!(decided(Some(&mine), on_disk("mine"), &there), Step::Write(again));
    }

    #[test]
    fn a_version_that_saw_mine_replaces_it_without_a_copy() {
        let mine = version(1, 10, "mine", &[]);
        let theirs = version(2, 20, "theirs", &[(1, 10)]);
        let both = view(vec![mine.clone(), theirs.clone()]);
        assert_eq!(decided(Some(&mine), on_disk("mine"), &both), Step::Write(theirs));
    }

    #[test]
    fn a_version_that_saw_only_an_earlier_one_of_mine_does_not_succeed_it() {
        let mine = version(1, 15, "mine", &[]);
        let theirs = version(2, 20, "theirs", &[(1, 10)]);
        let both = view(vec![mine.clone(), theirs.clone()]);
        let keep = Step::Keep { mine: mine.id, fact: mine.fact, winner: theirs.id };
        assert_eq!(decided(Some(&mine), on_disk("mine"), &both), keep);
    }

    #[test]
    fn what_was_answered_was_not_seen_by_the_next_edit() {
        // This node kept its own version in the replica, and theirs has not reached the disk: the user goes on with
        // the own one. Theirs was not seen by that, so its author has to keep it.
        let (mine, theirs) = (version(1, 10, "mine", &[]), version(2, 30, "theirs", &[]));
        let there = answered(&[(2, 30)], view(vec![mine.clone(), theirs.clone()]));
        assert_eq!(decided(Some(&mine), on_disk("edited"), &there), Step::Import { seen: seen(&[]) });
        assert!(!version(1, 40, "edited", &[]).succeeds(&theirs.id));
    }

    #[test]
    fn what_a_command_put_while_the_program_was_off_is_kept_before_an_edit_takes_its_place() {
        let (mine, put) = (version(1, 10, "mine", &[]), version(1, 20, "put", &[]));
        let keep = Step::Keep { mine: put.id, fact: put.fact, winner: put.id };
        for base in [Some(&mine), None] {
            let there = view(vec![put.clone()]);
            assert_eq!(decided(base, on_disk("edited"), &there), keep);
            assert_eq!(
                decided(base, on_disk("edited"), &answered(&[(1, 20)], there)),
                Step::Import { seen: seen(&[]) }
            );
        }
        assert_eq!(decided(Some(&mine), on_disk("mine"), &view(vec![put.clone()])), Step::Write(put));
    }

    #[test]
    fn something_that_is_not_shared_in_the_place_of_a_file_deletes_nothing() {
        let mine = version(1, 10, "a", &[]);
        assert_eq!(decided(Some(&mine), Disk::Refused, &view(vec![mine.clone()])), Step::Clash);
        assert_eq!(decided(None, Disk::Refused, &view(vec![mine.clone()])), Step::Clash);
        assert_eq!(decided(Some(&mine), Disk::Refused, &deleted(2, 20, &[(1, 10)], vec![])), Step::Forget);
        assert_eq!(decided(None, Disk::Refused, &view(vec![])), Step::Rest);
    }

    #[test]
    fn knowledge_that_is_newer_than_a_version_is_not_the_versions() {
        // Whatever a note says of ours of time 15: a version of time 10 has not seen it.
        let theirs = version(2, 10, "theirs", &[(1, 15)]);
        assert_eq!(theirs.knowledge(), seen(&[(2, 10)]));
        assert!(!theirs.succeeds(&id(1, 15)));
    }

    #[test]
    fn the_same_content_from_two_authors_is_no_conflict() {
        let (mine, theirs) = (version(1, 10, "same", &[]), version(2, 20, "same", &[]));
        let both = view(vec![mine.clone(), theirs.clone()]);
        assert_eq!(decided(Some(&mine), on_disk("same"), &both), Step::Adopt(theirs));
    }

    #[test]
    fn an_own_version_that_never_reached_the_disk_is_kept_too() {
        let mine = version(1, 10, "mine", &[]);
        let theirs = version(2, 20, "theirs", &[]);
        let both = view(vec![mine.clone(), theirs.clone()]);
        assert_eq!(
            decided(None, Disk::Absent, &both),
            Step::Keep { mine: mine.id, fact: mine.fact, winner: theirs.id }
        );
    }

    #[test]
    fn a_deleted_file_is_deleted_in_the_replica_with_what_was_seen() {
        let mine = version(1, 10, "a", &[]);
        assert_eq!(decided(Some(&mine), Disk::Absent, &view(vec![mine.clone()])), Step::Delete { seen: seen(&[]) });
        let theirs = version(2, 10, "a", &[(3, 4)]);
        let step = decided(Some(&theirs), Disk::Absent, &view(vec![theirs.clone()]));
        assert_eq!(step, Step::Delete { seen: seen(&[(2, 10), (3, 4)]) });
    }

    #[test]
    fn a_file_that_became_a_directory_is_deleted_and_not_overwritten() {
        let mine = version(1, 10, "a", &[]);
        assert_eq!(decided(Some(&mine), Disk::Blocked, &view(vec![mine.clone()])), Step::Delete { seen: seen(&[]) });
        let newer = version(2, 20, "b", &[(1, 10)]);
        assert_eq!(decided(Some(&mine), Disk::Blocked, &view(vec![mine.clone(), newer.clone()])), Step::Clash);
        assert_eq!(decided(None, Disk::Blocked, &view(vec![newer])), Step::Clash);
    }

    #[test]
    fn an_edit_elsewhere_wins_over_a_deletion_here() {
        let (theirs, newer) = (version(2, 10, "a", &[]), version(2, 20, "b", &[]));
        assert_eq!(decided(Some(&theirs), Disk::Absent, &view(vec![newer.clone()])), Step::Write(newer));
    }

    #[test]
    fn a_deletion_that_saw_my_version_removes_it() {
        let mine = version(1, 10, "mine", &[]);
        assert_eq!(decided(Some(&mine), on_disk("mine"), &deleted(2, 20, &[(1, 10)], vec![])), Step::Remove);
        // My own deletion, from the command line, needs no note.
        assert_eq!(decided(Some(&mine), on_disk("mine"), &deleted(1, 20, &[], vec![])), Step::Remove);
    }

    #[test]
    fn a_deletion_that_had_not_seen_my_version_does_not_remove_it() {
        let mine = version(1, 10, "mine", &[]);
        let again = Step::Import { seen: seen(&[]) };
        assert_eq!(decided(Some(&mine), on_disk("mine"), &deleted(2, 20, &[], vec![])), again);
        assert_eq!(decided(Some(&mine), on_disk("mine"), &deleted(2, 20, &[(1, 9)], vec![])), again);
    }

    #[test]
    fn a_deletion_from_before_the_version_on_disk_was_not_of_that() {
        // The replica has lost the version, with a store of yesterday.
        let (mine, theirs) = (version(1, 10, "mine", &[]), version(2, 10, "theirs", &[]));
        let again = Step::Import { seen: seen(&[]) };
        assert_eq!(decided(Some(&mine), on_disk("mine"), &deleted(1, 5, &[], vec![])), again);
        assert_eq!(decided(Some(&theirs), on_disk("theirs"), &deleted(2, 5, &[], vec![])), again);
        let older = version(2, 5, "older", &[]);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &view(vec![older])), Step::SetAside);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &deleted(1, 5, &[], vec![])), Step::SetAside);
    }

    #[test]
    fn a_deletion_of_anothers_version_is_the_others_matter() {
        let theirs = version(2, 10, "theirs", &[]);
        assert_eq!(decided(Some(&theirs), on_disk("theirs"), &deleted(3, 20, &[], vec![])), Step::Remove);
    }

    #[test]
    fn an_edit_of_a_deleted_file_puts_it_again() {
        let theirs = version(2, 10, "theirs", &[]);
        let step = decided(Some(&theirs), on_disk("edited"), &deleted(2, 20, &[], vec![]));
        assert_eq!(step, Step::Import { seen: seen(&[(2, 10)]) });
    }

    #[test]
    fn a_file_gone_on_both_sides_is_forgotten() {
        let mine = version(1, 10, "a", &[]);
        assert_eq!(decided(Some(&mine), Disk::Absent, &deleted(2, 20, &[(1, 10)], vec![])), Step::Forget);
    }

    #[test]
    fn a_version_that_vanished_without_a_deletion_is_put_again() {
        let (mine, older) = (version(1, 10, "a", &[]), version(2, 5, "older", &[]));
        assert_eq!(decided(Some(&mine), on_disk("a"), &view(vec![])), Step::Import { seen: seen(&[]) });
        assert_eq!(decided(Some(&mine), on_disk("a"), &view(vec![older])), Step::Import { seen: seen(&[]) });
    }

    #[test]
    fn a_put_that_was_not_noted_before_a_kill_is_recognised() {
        let (theirs, mine) = (version(2, 10, "theirs", &[]), version(1, 20, "mine", &[(2, 10)]));
        let newer = version(3, 30, "newer", &[]);
        let all = view(vec![theirs.clone(), mine.clone(), newer.clone()]);
        assert_eq!(decided(Some(&theirs), on_disk("mine"), &all), Step::Adopt(mine.clone()));
        // And then it is kept, because the newest one had not seen it.
        assert_eq!(
            decided(Some(&mine), on_disk("mine"), &all),
            Step::Keep { mine: mine.id, fact: mine.fact, winner: newer.id }
        );
    }

    #[test]
    fn going_back_to_an_older_text_is_an_edit() {
        let (mine, theirs) = (version(1, 10, "old", &[]), version(2, 20, "new", &[(1, 10)]));
        let both = view(vec![mine, theirs.clone()]);
        assert_eq!(decided(Some(&theirs), on_disk("old"), &both), Step::Import { seen: seen(&[(2, 20)]) });
    }

    #[test]
    fn a_changed_executable_bit_is_an_edit() {
        let mine = version(1, 10, "run", &[]);
        let fact = fact("run");
        let disk = Disk::Found(Found { kind: Kind::Executable, len: fact.len, hash: Some(fact.hash) });
        assert_eq!(decided(Some(&mine), disk, &view(vec![mine.clone()])), Step::Import { seen: seen(&[]) });
    }

    #[test]
    fn a_read_only_folder_writes_nothing_to_the_replica() {
        let theirs = version(2, 10, "theirs", &[]);
        let newer = version(2, 20, "newer", &[]);
        assert_eq!(decided_read_only(None, on_disk("local"), &view(vec![])), Step::Rest);
        assert_eq!(decided_read_only(Some(&theirs), on_disk("local"), &view(vec![theirs.clone()])), Step::Rest);
        assert_eq!(decided_read_only(Some(&theirs), on_disk("local"), &view(vec![newer.clone()])), Step::SetAside);
        assert_eq!(decided_read_only(None, on_disk("local"), &view(vec![newer.clone()])), Step::SetAside);
        assert_eq!(decided_read_only(Some(&theirs), Disk::Absent, &view(vec![theirs.clone()])), Step::Write(theirs));
    }

    #[test]
    fn a_read_only_folder_sets_aside_what_it_wrote_when_it_might() {
        let mine = version(1, 10, "mine", &[]);
        let (blind, knowing) = (version(2, 20, "theirs", &[]), version(2, 20, "theirs", &[(1, 10)]));
        let there = view(vec![mine.clone(), blind.clone()]);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &there), Step::SetAside);
        assert_eq!(decided_read_only(None, Disk::Absent, &there), Step::Write(blind.clone()));
        let there = answered(&[(2, 20)], there);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &there), Step::Write(blind));
        let there = view(vec![mine.clone(), knowing.clone()]);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &there), Step::Write(knowing));
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &deleted(2, 20, &[], vec![])), Step::SetAside);
        assert_eq!(decided_read_only(Some(&mine), on_disk("mine"), &deleted(2, 20, &[(1, 10)], vec![])), Step::Remove);
    }

    /// Two or three nodes edit, delete and exchange everything in a random order; in the end all
    /// disks are equal and every text that was typed and not knowingly replaced is on them.
    mod together {
        use std::collections::{BTreeMap, BTreeSet};

        use proptest::prelude::*;

        use super::*;

        #[derive(Debug, Clone)]
        enum Act {
            Type,
            Delete,
            Exchange(usize),
            Settle,
            /// One step for one file, as when the program is killed after it.
            Step,
            /// From now on versions of others cannot be written to disk: contents are on their way, or the disk is full.
            Block,
            Unblock,
        }

        #[derive(Clone, Default)]
        struct Replica {
            values: BTreeMap<(String, AuthorId), (u64, Fact)>,
            notes: BTreeMap<(String, AuthorId), (u64, Seen)>,
            answers: BTreeMap<(String, AuthorId), (u64, Seen)>,
            deletions: BTreeMap<String, (u64, AuthorId)>,
            deletion_notes: BTreeMap<(String, AuthorId), (u64, Seen)>,
        }

        impl Replica {
            fn merge(&mut self, other: &Self) {
                fn newer<K: Ord + Clone, V: Clone>(mine: &mut BTreeMap<K, (u64, V)>, theirs: &BTreeMap<K, (u64, V)>) {
                    for (key, value) in theirs {
                        if mine.get(key).is_none_or(|(timestamp, _)| *timestamp < value.0) {
                            mine.insert(key.clone(), value.clone());
                        }
                    }
                }
                newer(&mut self.values, &other.values);
                newer(&mut self.notes, &other.notes);
                newer(&mut self.answers, &other.answers);
                newer(&mut self.deletions, &other.deletions);
                newer(&mut self.deletion_notes, &other.deletion_notes);
                let deletions = self.deletions.clone();
                self.values
                    .retain(|(key, _), (timestamp, _)| deletions.get(key).is_none_or(|gone| gone.0 < *timestamp));
            }

            fn view(&self, key: &str, me: AuthorId) -> View {
                let versions = self.values.iter().filter(|((name, _), _)| name == key);
                let versions = versions.map(|((_, author), (timestamp, fact))| Version {
                    id: VersionId { timestamp: Timestamp(*timestamp), author: *author },
                    fact: *fact,
                    seen: self.notes.get(&(key.to_string(), *author)).map(|(_, seen)| seen.clone()).unwrap_or_default(),
                });
                let mut view = view(versions.collect());
                let of = |notes: &BTreeMap<(String, AuthorId), (u64, Seen)>| {
                    notes.get(&(key.to_string(), me)).map(|(_, seen)| seen.clone()).unwrap_or_default()
                };
                (view.noted, view.answered) = (of(&self.notes), of(&self.answers));
                view.deletion = self.deletions.get(key).map(|(timestamp, author)| Deletion {
                    id: VersionId { timestamp: Timestamp(*timestamp), author: *author },
                    seen: self
                        .deletion_notes
                        .get(&(key.to_string(), *author))
                        .map(|(_, seen)| seen.clone())
                        .unwrap_or_default(),
                });
                view
            }
        }

        struct Node {
            me: AuthorId,
            replica: Replica,
            disk: BTreeMap<String, Fact>,
            bases: BTreeMap<String, Base>,
            blocked: bool,
        }

        impl Node {
            fn note(&mut self, key: &str, timestamp: u64, seen: Seen) {
                if !seen.is_empty() {
                    let note = self.replica.notes.entry((key.into(), self.me)).or_default();
                    note.0 = timestamp;
                    note.1.extend(seen);
                }
            }

            fn keys(&self) -> BTreeSet<String> {
                let mut keys: BTreeSet<String> = self.disk.keys().chain(self.bases.keys()).cloned().collect();
                keys.extend(self.replica.values.keys().map(|(key, _)| key.clone()));
                keys.extend(self.replica.deletions.keys().cloned());
                keys
            }

            fn settle(&mut self, clock: &mut u64) {
                for _ in 0..50 {
                    let mut rested = true;
                    for key in self.keys() {
                        rested &= self.step(&key, clock);
                    }
                    if rested {
                        return;
                    }
                }
                panic!("it never comes to rest");
            }

            fn put(&mut self, key: &str, fact: Fact, seen: Seen, clock: &mut u64) {
                *clock += 1;
                self.note(key, *clock, seen);
                self.replica.values.insert((key.into(), self.me), (*clock, fact));
            }

            fn step(&mut self, key: &str, clock: &mut u64) -> bool {
                let view = self.replica.view(key, self.me);
                let disk = self.disk.get(key).map_or(Disk::Absent, |fact| {
                    Disk::Found(Found { kind: fact.kind, len: fact.len, hash: Some(fact.hash) })
                });
                match decide(self.me, Mode::ReadWrite, self.bases.get(key), &disk, &view) {
                    Step::Rest => return true,
                    Step::Adopt(version) => {
                        self.bases.insert(key.into(), Base::of(&version));
                    }
                    Step::Import { seen } => self.put(key, self.disk[key], seen, clock),
                    Step::Delete { seen } => {
                        *clock += 1;
                        let merged = Replica {
                            deletions: [(key.to_string(), (*clock, self.me))].into(),
                            deletion_notes: [((key.to_string(), self.me), (*clock, seen))].into(),
                            ..Replica::default()
                        };
                        self.replica.merge(&merged);
                        self.bases.remove(key);
                    }
                    Step::Keep { mine, fact, winner } => {
                        let kept = format!("{key}!{mine:?}");
                        self.put(&kept, fact, Seen::new(), clock);
                        let answers = self.replica.answers.entry((key.into(), self.me)).or_default();
                        answers.0 = *clock;
                        answers.1.insert(winner.author, winner.timestamp);
                    }
                    Step::Write(_) if self.blocked => return true,
                    Step::Write(version) => {
                        self.disk.insert(key.into(), version.fact);
                        self.bases.insert(key.into(), Base::of(&version));
                    }
                    Step::Remove => {
                        self.disk.remove(key);
                        self.bases.remove(key);
                    }
                    Step::Forget => {
                        self.bases.remove(key);
                    }
                    Step::SetAside | Step::Clash => unreachable!("neither can happen here"),
                }
                false
            }
        }

        fn act() -> impl Strategy<Value = (usize, Act)> {
            let act = prop_oneof![
                4 => Just(Act::Type),
                1 => Just(Act::Delete),
                3 => (0..3usize).prop_map(Act::Exchange),
                3 => Just(Act::Settle),
                2 => Just(Act::Step),
                1 => Just(Act::Block),
                1 => Just(Act::Unblock),
            ];
            (0..3usize, act)
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

            #[test]
            fn no_text_that_was_typed_disappears_and_all_disks_become_equal(acts in prop::collection::vec(act(), 1..25)) {
                let mut nodes: Vec<Node> = (1..=3)
                    .map(|n| Node {
                        me: author(n),
                        replica: Replica::default(),
                        disk: BTreeMap::new(),
                        bases: BTreeMap::new(),
                        blocked: false,
                    })
                    .collect();
                let mut clock = 100;
                // Every text, and the texts that its writer knowingly replaced or deleted.
                let mut typed: BTreeSet<Hash> = BTreeSet::new();
                let mut replaced: BTreeSet<Hash> = BTreeSet::new();
                for (count, (at, act)) in acts.into_iter().enumerate() {
                    match act {
                        Act::Type => {
                            let text = fact(&format!("text {count}"));
                            typed.insert(text.hash);
                            replaced.extend(nodes[at].disk.insert("f".into(), text).map(|fact| fact.hash));
                        }
                        Act::Delete => replaced.extend(nodes[at].disk.remove("f").map(|fact| fact.hash)),
                        Act::Exchange(with) => {
                            let theirs = nodes[with].replica.clone();
                            nodes[at].replica.merge(&theirs);
                        }
                        Act::Settle => nodes[at].settle(&mut clock),
                        Act::Step => {
                            let keys = nodes[at].keys();
                            keys.iter().find(|key| !nodes[at].step(key, &mut clock));
                        }
                        Act::Block => nodes[at].blocked = true,
                        Act::Unblock => nodes[at].blocked = false,
                    }
                }
                nodes.iter_mut().for_each(|node| node.blocked = false);
                for _ in 0..20 {
                    for at in 0..3 {
                        nodes[at].settle(&mut clock);
                        for from in 0..3 {
                            let theirs = nodes[from].replica.clone();
                            nodes[at].replica.merge(&theirs);
                        }
                    }
                }
                for node in &nodes[1..] {
                    prop_assert_eq!(&node.disk, &nodes[0].disk);
                }
                let there: BTreeSet<Hash> = nodes[0].disk.values().map(|fact| fact.hash).collect();
                for text in typed.difference(&replaced) {
                    prop_assert!(there.contains(text), "a text is lost");
                }
            }
        }
    }
}
