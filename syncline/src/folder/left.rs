//! What a kill left in the directory of temporary files.
//!
//! Mostly these are copies: versions on their way to the disk, or replaced ones. But the program moves a file out of
//! its place to look at it once more, and when it is killed at that moment, what lies here may be a version that the
//! user saved just before. Such a file goes back to its place, or beside it.

use std::{collections::HashMap, fs, io, path::Path};

use super::{
    apply::{Purpose, remove_any, saved_at},
    conflict::{kept_name, readable},
    engine::Engine,
    key::FileKey,
    scan,
    state::Stat,
};

impl Engine {
    /// Removes what is in the replica, and brings back what is not.
    pub(super) fn settle_what_is_left(&self) -> io::Result<()> {
        let left = self.workshop.left()?;
        if left.is_empty() {
            return Ok(());
        }
        let keys = self.state.keys().chain(self.state.intents());
        let known: HashMap<String, (Purpose, &FileKey)> =
            keys.flat_map(|key| Purpose::ALL.map(|purpose| (purpose.name_of(key), (purpose, key)))).collect();
        for left in left {
            let settled = match known.get(base_name(&left)) {
                Some(&(purpose, key)) => self.settle(&left, key, purpose),
                // Nothing was noted of it, so it was not whole and took nobody's place; unless all notes were lost.
                None if Purpose::New.made(base_name(&left)) && !self.state.is_new() => remove_any(&left),
                None if Purpose::ALL.iter().any(|purpose| purpose.made(base_name(&left))) => self.recover(&left),
                // Not made here.
                None => Ok(()),
            };
            if let Err(error) = settled {
                tracing::warn!(left = %left.display(), %error, "a file that a kill left can neither be removed nor brought back");
            }
        }
        Ok(())
    }

    fn settle(&self, left: &Path, key: &FileKey, purpose: Purpose) -> io::Result<()> {
        // What cannot be read is not known to be a copy.
        if self.is_a_copy(left, key, purpose).unwrap_or(false) {
            return remove_any(left);
        }
        let back = self.bring_back(left, key);
        if back.is_err() {
            // What is noted of the file is settled soon. The next start must not take this for one in the making.
            self.workshop.set_aside(left)?;
        }
        back
    }

    /// Brings back what nobody knows the name of.
    fn recover(&self, left: &Path) -> io::Result<()> {
        let name = format!("recovered (saved {})", readable(saved_at(left)?));
        let name = FileKey::new(name.as_bytes()).map_err(|problem| io::Error::other(problem.to_string()))?;
        let back = self.workshop.bring_back(left, &name);
        if back.is_err() {
            self.workshop.set_aside(left)?;
        }
        back
    }

    /// Names what could not be brought back, which may be the user's: it stays, and stops nothing.
    pub(super) fn note_what_is_left(&self) {
        for left in self.workshop.left().unwrap_or_default() {
            if Purpose::Aside.made(base_name(&left)) {
                self.problems.raise(
                    left.display().to_string(),
                    "it was saved at the moment when a newer version was written, and could not be brought back",
                    "move it to where you want it, or see to permissions and start again",
                );
            }
        }
    }

    /// Whether it is the version that was at `key`, or the one that was to come there.
    fn is_a_copy(&self, left: &Path, key: &FileKey, purpose: Purpose) -> io::Result<bool> {
        let next = self.state.intent(key);
        if purpose == Purpose::New && next.is_none() {
            // It may not be whole, and has not been exchanged.
            return Ok(true);
        }
        let Some(stat) = Stat::of(&fs::symlink_metadata(left)?) else { return Ok(true) };
        let known = self.state.get(key).map(|known| known.base.fact);
        let facts = [known, next.map(|next| next.fact)];
        if !facts.iter().flatten().any(|fact| fact.len == stat.len) {
            return Ok(false);
        }
        let hash = scan::hash_file(left, &stat).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(facts.iter().flatten().any(|fact| (fact.len, fact.hash) == (stat.len, hash)))
    }

    fn bring_back(&self, left: &Path, key: &FileKey) -> io::Result<()> {
        match self.workshop.bring_back(left, key) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            moved => return moved,
        }
        let kept = kept_name(key, self.replica.me(), saved_at(left)?);
        let kept = kept.map_err(|problem| io::Error::other(problem.to_string()))?;
        tracing::info!(%key, %kept, "what was saved while a newer version was written is kept under another name");
        self.workshop.bring_back(left, &kept)
    }
}

/// The name of a temporary file without its number.
fn base_name(left: &Path) -> &str {
    let name = left.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.rsplit_once('-').map_or(name, |(base, _)| base)
}
