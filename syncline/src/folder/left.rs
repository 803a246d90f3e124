//! What a kill left in the directory of temporary files.
//!
//! Mostly these are copies: versions on their way to the disk, or replaced ones. But the program moves a file out of
//! its place to look at it once more, and when it is killed at that moment, what lies here may be a version that the
//! user saved just before. Such a file goes back to its place, or beside it.

use std::{collections::HashMap, fs, io, path::Path};

use sync_core::model::Timestamp;

use super::{
    apply::{Purpose, remove_any},
    conflict::kept_name,
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
            let name = left.file_name().unwrap_or_default().to_string_lossy();
            let known = name.rsplit_once('-').and_then(|(name, _)| known.get(name));
            let settled = match known {
                Some(&(purpose, key)) => self.is_a_copy(&left, key, purpose).and_then(|is_a_copy| match is_a_copy {
                    true => remove_any(&left),
                    false => self.bring_back(&left, key),
                }),
                None => remove_any(&left),
            };
            if let Err(error) = settled {
                // It may be the user's: it stays, and stops nothing.
                tracing::warn!(left = %left.display(), %error, "a file that a kill left can neither be removed nor brought back");
            }
        }
        Ok(())
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
        let saved = fs::symlink_metadata(left)?.modified()?;
        let saved = saved.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let saved = Timestamp(u64::try_from(saved.as_micros()).unwrap_or(u64::MAX));
        let kept = kept_name(key, self.replica.me(), saved).map_err(|problem| io::Error::other(problem.to_string()))?;
        tracing::info!(%key, %kept, "what was saved while a newer version was written is kept under another name");
        self.workshop.bring_back(left, &kept)
    }
}
