//! What a session leaves: entries that have come and are not durable yet. They are taken in before the next session
//! is opened or answered, which then says that they are here; so a cut costs only what was on its way.

use super::{
    io::*,
    session::{Applied, Session},
    synchronizer::{JobKey, Synchronizer},
};

impl Synchronizer {
    /// Takes in what has come in a session that is over.
    pub(super) fn drain(&mut self, key: JobKey, mut session: Session) {
        let Some(known) = self.replicas.get(&key.0).filter(|_| session.is_live() && !self.stopping) else { return };
        let effects = session.drain(&mut self.io, known);
        match session.is_drained() {
            true => self.forget_position(key, session.is_unplaced()),
            false => _ = self.draining.insert(key, session),
        }
        self.effects(key, effects);
    }

    /// A session has ended before what it has refused could be placed: the next one finds it by a reconciliation, or the
    /// same would be sent again, and refused, each time.
    fn forget_position(&mut self, key: JobKey, is_unplaced: bool) {
        if is_unplaced
            && let Some(job) = self.jobs.get_mut(&key)
            && job.record.received.take().is_some()
        {
            self.job_changed(key);
        }
    }

    /// Work for such a session is done.
    pub(super) fn drained(&mut self, key: JobKey, serial: u64, result: Result<StoreReply, WorkError>) {
        let known = self.replicas.get(&key.0);
        let session = self.draining.get_mut(&key).filter(|session| session.serial == serial);
        let (Some(known), Some(session)) = (known, session) else { return };
        let effects = match result {
            Ok(StoreReply::Verified { bundles }) => session.entries_verified(&mut self.io, known, bundles),
            Ok(StoreReply::Applied { state, inserted, refused, refused_count, rights_changed: _ }) => {
                let applied = Applied { head: state.head, inserted, rights: state.rights, refused, refused_count };
                session.entries_applied(&mut self.io, known, &applied)
            }
            // What it read for the peer nobody waits for.
            Ok(_) => return,
            Err(_) => {
                session.abandon();
                Vec::new()
            }
        };
        if session.is_drained() {
            let (traffic, is_unplaced) = (session.traffic, session.is_unplaced());
            self.draining.remove(&key);
            self.forget_position(key, is_unplaced);
            self.traffic.entry(key).or_default().add(&traffic);
        }
        self.effects(key, effects);
        self.prepare(key);
    }
}
