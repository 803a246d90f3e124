//! The blocking side of fetching from a peer: what comes is proved and written.

use std::sync::{Arc, Mutex, atomic::Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::{
    BlobError,
    choose::{Task, View},
    fetch::{Finished, Shared, lock},
    possession::Question,
};
use crate::{
    model::PeerId,
    store::{ContentError, GroupRanges},
};

/// A request that is not answered yet.
pub(super) struct Asked {
    pub task: Task,
    /// Places in the window, free when this is dropped: one, and some for the groups.
    pub _places: [OwnedSemaphorePermit; 2],
}

/// What a peer answered.
pub(super) enum Work {
    Data(Bytes),
    Done,
    Proof([u8; 32]),
    Refused(GroupRanges),
}

/// Performs one peer's answers, in order.
pub(super) struct Worker {
    shared: Arc<Shared>,
    peer: PeerId,
    view: Arc<Mutex<View>>,
    unanswered: mpsc::Receiver<Asked>,
    current: Option<Asked>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>, peer: PeerId, view: Arc<Mutex<View>>, unanswered: mpsc::Receiver<Asked>) -> Self {
        Self { shared, peer, view, unanswered, current: None }
    }

    /// Runs until nothing more comes, or something is wrong.
    pub fn run(mut self, mut to_do: mpsc::Receiver<Work>) -> Result<(), BlobError> {
        while let Some(work) = to_do.blocking_recv() {
            self.perform(work)?;
        }
        Ok(())
    }

    fn perform(&mut self, work: Work) -> Result<(), BlobError> {
        const NOTHING: BlobError = BlobError::Protocol("an answer to nothing");
        if self.current.is_none() {
            self.current = self.unanswered.try_recv().ok();
        }
        let asked = self.current.as_mut().ok_or(NOTHING)?;
        match (work, &mut asked.task) {
            (Work::Data(bytes), Task::Groups { replica, download, claim }) => {
                download.comes_for(*replica);
                claim.push(&bytes).map_err(unproved)?;
                if download.partial().flush_due() {
                    self.shared.flush.notify_one();
                }
            }
            (Work::Done, Task::Groups { download, claim, .. }) => {
                if !claim.is_done() {
                    return Err(BlobError::Protocol("an answer that ends early"));
                }
                if download.partial().is_complete() {
                    self.shared.finish_soon(Finished::Download(Arc::clone(download)));
                }
                self.current = None;
            }
            (Work::Data(bytes), Task::Tree { replica, download, claim }) => {
                download.comes_for(*replica);
                let copied = claim.push(&bytes).map_err(unproved)?;
                if download.partial().flush_due() {
                    self.shared.flush.notify_one();
                }
                self.shared.reused.fetch_add(copied, Ordering::Relaxed);
            }
            (Work::Done, Task::Tree { download, claim, .. }) => {
                if !claim.is_done() {
                    return Err(BlobError::Protocol("an answer that ends early"));
                }
                if download.partial().is_complete() {
                    self.shared.finish_soon(Finished::Download(Arc::clone(download)));
                }
                self.current = None;
                // What the older version does not have can be asked for.
                self.shared.changed(|changes| changes.claims += 1);
            }
            (Work::Proof(proof), Task::Proof { .. }) => {
                let Some(Asked { task: Task::Proof { proving, groups }, .. }) = self.current.take() else {
                    return Err(NOTHING);
                };
                let run = proving.run(&groups);
                let question = Question { asker: self.shared.me, server: self.peer, run: &run, nonce: &proving.nonce };
                match question.answer(&proving.reader) {
                    // Hashes are compared in constant time, although this one is good for nothing else.
                    Ok(expected) if blake3::Hash::from(expected) == blake3::Hash::from(proof) => {
                        if proving.proved(&groups) {
                            self.shared.finish_soon(Finished::Proved(proving));
                        }
                    }
                    Ok(_) => return Err(BlobError::Protocol("a proof that proves nothing")),
                    Err(ContentError::Damaged { .. }) => {
                        proving.give_up();
                        self.shared.finish_soon(Finished::Damaged(proving.hash));
                    }
                    Err(error) => return Err(BlobError::Store(error.into())),
                }
            }
            (Work::Refused(has), task) => {
                let mut wants = 0;
                let (what, has) = match task {
                    // A peer that names groups and does not give them would be asked for ever.
                    Task::Groups { replica, download, claim } => {
                        let named = has.contains(&claim.groups());
                        ((*replica, download.hash()), if named { GroupRanges::empty() } else { has })
                    }
                    Task::Tree { replica, download, claim } => {
                        let named = has.contains(&claim.groups());
                        ((*replica, download.hash()), if named { GroupRanges::empty() } else { has })
                    }
                    // Only who has all of it can prove that.
                    Task::Proof { proving, .. } => {
                        proving.give_up();
                        wants = 1; // Another peer can be asked.
                        ((proving.replica, proving.hash), GroupRanges::empty())
                    }
                };
                lock(&self.view).refused(what, has);
                self.current = None;
                self.shared.changed(|changes| {
                    changes.claims += 1;
                    changes.wants += wants;
                });
            }
            (Work::Data(_) | Work::Done | Work::Proof(_), _) => {
                return Err(BlobError::Protocol("an answer to another question"));
            }
        }
        Ok(())
    }
}

fn unproved(error: ContentError) -> BlobError {
    match error {
        ContentError::Unproved { .. } => BlobError::Unproved(error),
        error => BlobError::Store(error.into()),
    }
}
