//! From the replica to the disk.

use std::{
    io,
    path::PathBuf,
    time::{Instant, SystemTime},
};

use bytes::Bytes;
use sync_core::model::Timestamp;

use super::{
    apply::{Outcome, Workshop, set_executable},
    conflict::kept_name,
    engine::{Engine, EngineError, RETRY},
    key::{FileKey, IGNORE_FILE},
    plan::{Base, Disk, Version},
    replica::{FolderReplica, ReplicaError},
    rounds::Inspected,
    state::RACY,
};

impl Engine {
    /// Writes versions to disk: first all bytes, one sync, the intents, then the moves.
    pub(super) fn write(
        &mut self,
        files: Vec<(Inspected, Version)>,
        again: &mut Vec<FileKey>,
    ) -> Result<(), EngineError> {
        if files.is_empty() {
            return Ok(());
        }
        // What is half made must not meet an intent that is settled: after a kill it would look like a whole one.
        self.state.flush()?;
        let mut ready = Vec::new();
        for (file, version, made) in self.make_all(files)? {
            match made {
                Ok(temporary) => ready.push((file, version, temporary)),
                Err(EngineError::Replica(ReplicaError::NotHere)) => {
                    self.waiting.entry(version.fact.hash).or_default().insert(file.key);
                }
                Err(error) => self.could_not_write(&file.key, &error.to_string()),
            }
        }
        if ready.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.announce(&ready) {
            // Otherwise they would lie there until the next start.
            for (_, _, temporary) in &ready {
                let _ = std::fs::remove_file(temporary);
            }
            return Err(error);
        }
        for (file, version, temporary) in ready {
            match self.workshop.place_file(&temporary, &file.key, file.stat.as_ref()) {
                Ok(Outcome::Done(stat)) => {
                    self.state.set(&file.key, Base::of(&version), stat);
                    if stat.is_none() {
                        self.inbox.look_at(file.key.path(), RACY * 2);
                    }
                    self.problems.clear(&file.key.to_string());
                    if file.key.path().file_name() == Some(IGNORE_FILE.as_ref()) {
                        self.inbox.look_at_everything();
                    }
                }
                Ok(Outcome::Changed) => again.push(file.key),
                Err(error) => self.could_not_write(&file.key, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Makes the temporary files durable, and notes what they are for.
    fn announce(&mut self, ready: &[(Inspected, Version, PathBuf)]) -> Result<(), EngineError> {
        self.workshop.sync()?;
        for (file, version, _) in ready {
            self.state.set_intent(&file.key, Base::of(version));
        }
        Ok(self.state.sync()?)
    }

    /// Writes the bytes of versions to temporary files, with two threads.
    fn make_all(&self, files: Vec<(Inspected, Version)>) -> Result<Vec<Made>, EngineError> {
        let (replica, workshop, runtime) = (&*self.replica, &self.workshop, &self.runtime);
        let versions: Vec<_> = files.iter().map(|(file, version)| (&file.key, version.id)).collect();
        // A chunk of files that lie inline is some MiB at most.
        let inline = runtime.block_on(replica.inline(&versions))?;
        let mut files: Vec<_> = files.into_iter().zip(inline).collect();
        let make_half = |half: Vec<((Inspected, Version), Option<Bytes>)>| {
            let made = half.into_iter().map(|((file, version), inline)| {
                let made = match inline {
                    Some(bytes) => workshop.write(&file.key, version.fact.kind, &bytes).map_err(EngineError::from),
                    None => runtime.block_on(export(replica, workshop, &file.key, &version)),
                };
                (file, version, made)
            });
            made.collect::<Vec<_>>()
        };
        if files.len() < 4 {
            return Ok(make_half(files));
        }
        let right = files.split_off(files.len() / 2);
        std::thread::scope(|scope| {
            let left = scope.spawn(|| make_half(files));
            let right = make_half(right);
            let mut all = left.join().expect("writing does not panic");
            all.extend(right);
            Ok(all)
        })
    }

    pub(super) fn could_not_write(&mut self, key: &FileKey, error: &str) {
        self.unwritten.insert(key.clone());
        self.retry_at.get_or_insert_with(|| Instant::now() + RETRY);
        let advice = "see to space and permissions; it is tried again every few seconds";
        let cause = format!("it cannot be written: {error}");
        self.problems.raise_until(key.to_string(), cause, advice, Some(SystemTime::now() + RETRY));
    }

    /// Removes from disk what was deleted elsewhere.
    pub(super) fn remove(&mut self, files: Vec<Inspected>, again: &mut Vec<FileKey>) -> Result<(), EngineError> {
        for file in files {
            let Some(stat) = file.stat else { continue };
            match self.workshop.remove_file(&file.key, &stat) {
                Ok(Outcome::Done(_)) => {
                    self.state.remove(&file.key);
                    self.problems.clear(&file.key.to_string());
                }
                Ok(Outcome::Changed) => again.push(file.key),
                Err(error) => self.could_not_write(&file.key, &error.to_string()),
            }
        }
        Ok(())
    }

    /// Moves aside what cannot be put: it stays on this device, under the name of a kept version.
    pub(super) fn set_aside(&mut self, file: &Inspected, base: Option<&Base>) -> io::Result<()> {
        let me = self.replica.me();
        let name =
            |at: Timestamp| kept_name(&file.key, me, at).map_err(|problem| io::Error::other(problem.to_string()));
        let is_base = |base: &&Base| matches!(&file.disk, Disk::Found(found) if found.is(&base.fact));
        // A version that was in the replica has the name that it would have there.
        let own = base.filter(|base| base.id.author == me).filter(is_base);
        let moved = match own.map(|base| name(base.id.timestamp)) {
            Some(kept) => self.workshop.move_to(&file.key, &kept?),
            None => Err(io::ErrorKind::AlreadyExists.into()),
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let now = Timestamp(u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
                self.workshop.move_to(&file.key, &name(now)?)?;
            }
            moved => moved?,
        }
        self.state.remove(&file.key);
        Ok(())
    }
}

/// A file, the version that it is to be, and the temporary file that has its bytes.
type Made = (Inspected, Version, Result<PathBuf, EngineError>);

/// Writes the content of a version to a temporary file.
async fn export(
    replica: &dyn FolderReplica,
    workshop: &Workshop,
    key: &FileKey,
    version: &Version,
) -> Result<PathBuf, EngineError> {
    let place = workshop.place(key);
    let exported = replica.export(key, version, &place).await;
    let done = exported.map_err(EngineError::from).and_then(|()| Ok(set_executable(&place, version.fact.kind)?));
    if let Err(error) = done {
        let _ = std::fs::remove_file(&place);
        return Err(error);
    }
    Ok(place)
}
