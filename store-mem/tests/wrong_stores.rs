//! The suite can fail: each deliberately wrong store is caught by the case of the sentence it breaks.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use store_mem::MemEngine;
use sync_core::{
    model::{Hash, Key, ReplicaId, SlotRange, Summary, Timestamp},
    store::{coded::CodedSet, *},
    testing::{
        block_on,
        store_suite::{StoreHarness, apply, content, history, log, read, reconcile},
    },
};

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ForgetsWhenClosed,
    AppliesBundlesOneByOne,
    AnswersOutcomesBackwards,
    TakesOnlyWhatIsNewerThanItsHead,
    SaysDominatedForRefused,
    TakesTheFuture,
    SavesTheRecordsOfAFailedApply,
    LosesAWrite,
    GetsTheOldestAuthor,
    PrefersTheLastOfAKeyGoingDown,
    MatchesAShorterPrefix,
    AnswersTheLastQueryFirst,
    SumsFromTheStart,
    LeavesOutTheLastPart,
    ListsTheLogBackwards,
    SendsNoProofs,
    TearsCommits,
    EchoesToThePeer,
    IgnoresTheScope,
    SendsWhatTheOtherHas,
    ForgetsAClaim,
    TakesAnyNumberOfClaims,
    CodesWhatIsNotThere,
    CodesLess,
    FindsLess,
    ChangesItsId,
    DropsNothing,
    CreatesWhatIsAskedFor,
    CreatesAgain,
    MixesTheKinds,
    StaysOpen,
    HoldsWhatIsHere,
}

struct Wrong {
    fault: Fault,
    engine: MemEngine,
}

impl StoreHarness for Wrong {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        match self.fault {
            Fault::ForgetsWhenClosed | Fault::ChangesItsId => self.another(),
            _ => self.wrap(Arc::new(EngineStore::open(self.engine.clone()).expect("memory can be opened"))),
        }
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        self.wrap(Arc::new(store_mem::open().expect("memory can be opened")))
    }
}

impl Wrong {
    fn wrap(&self, inner: Arc<dyn ReplicaStore>) -> Arc<dyn ReplicaStore> {
        Arc::new(WrongStore { fault: self.fault, inner, applied: Mutex::new(0) })
    }
}

#[derive(Debug)]
struct WrongStore {
    fault: Fault,
    inner: Arc<dyn ReplicaStore>,
    applied: Mutex<usize>,
}

#[async_trait::async_trait]
impl ReplicaStore for WrongStore {
    fn store_id(&self) -> StoreId {
        self.inner.store_id()
    }

    async fn replicas(&self) -> Result<Vec<ReplicaId>, StoreError> {
        self.inner.replicas().await
    }

    async fn create_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        if self.fault == Fault::CreatesAgain {
            // It need not be there.
            let _ = self.inner.drop_replica(replica, vec![]).await;
        }
        self.inner.create_replica(replica, records).await
    }

    async fn drop_replica(&self, replica: ReplicaId, records: Vec<NodeRecord>) -> Result<u64, StoreError> {
        if self.fault == Fault::DropsNothing {
            self.inner.save(records).await?;
            return Ok(100_000);
        }
        self.inner.drop_replica(replica, records).await
    }

    async fn state(&self, replica: ReplicaId) -> Result<ReplicaState, StoreError> {
        if self.fault == Fault::CreatesWhatIsAskedFor {
            self.inner.create_replica(replica, vec![]).await?;
        }
        self.inner.state(replica).await
    }

    async fn apply(&self, mut batch: Apply) -> Result<Applied, StoreError> {
        let number = {
            let mut applied = self.applied.lock().expect("no case panics in here");
            *applied += 1;
            *applied
        };
        match self.fault {
            Fault::AppliesBundlesOneByOne => {
                let mut outcomes = vec![];
                for bundle in std::mem::take(&mut batch.bundles) {
                    let one = Apply { bundles: vec![bundle], ..batch.clone() };
                    outcomes.extend(self.inner.apply(one).await?.outcomes);
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                return Ok(Applied { outcomes, ..self.inner.apply(batch).await? });
            }
            Fault::TakesOnlyWhatIsNewerThanItsHead => {
                let newest = self.inner.state(batch.replica).await?.newest;
                batch.bundles.retain(|bundle| bundle.seal().timestamp >= newest || bundle.seal().count > 20);
            }
            Fault::TakesTheFuture => batch.now = Timestamp(u64::MAX),
            Fault::SavesTheRecordsOfAFailedApply => {
                let fits = batch.records.iter().filter(|record| record.name.len() < 2_000).cloned();
                let mut records: Vec<NodeRecord> = fits.collect();
                records.extend(
                    batch
                        .records
                        .iter()
                        .filter(|record| record.name.len() >= 2_000)
                        .map(|record| NodeRecord { name: record.name.slice(..9), ..record.clone() }),
                );
                self.inner.save(records).await?;
            }
            Fault::LosesAWrite if number == 50 => {
                let state = self.inner.state(batch.replica).await?;
                let count = batch.bundles.iter().map(|bundle| bundle.len()).sum();
                let outcomes = vec![Outcome::Inserted { replaced: 0 }; count];
                return Ok(Applied { outcomes, state, rights_changed: false });
            }
            _ => {}
        }
        let mut applied = self.inner.apply(batch).await?;
        match self.fault {
            Fault::AnswersOutcomesBackwards => applied.outcomes.reverse(),
            Fault::SaysDominatedForRefused => {
                let refused = |outcome: &&mut Outcome| matches!(outcome, Outcome::Refused(_));
                applied.outcomes.iter_mut().filter(refused).for_each(|outcome| *outcome = Outcome::Dominated);
            }
            _ => {}
        }
        Ok(applied)
    }

    async fn get(&self, replica: ReplicaId, key: Key) -> Result<Option<LogEntry>, StoreError> {
        if self.fault == Fault::GetsTheOldestAuthor {
            let query = Query { key: Some(key.as_bytes().clone()), select: Select::All, ..Query::default() };
            return Ok(self.inner.query(replica, query).await?.pop());
        }
        self.inner.get(replica, key).await
    }

    async fn query_each(&self, replica: ReplicaId, mut queries: Vec<Query>) -> Result<Vec<Vec<LogEntry>>, StoreError> {
        let is_newest_down = |query: &Query| {
            query.select == Select::Newest && query.direction == Direction::Descending && query.limit == 0
        };
        let down: Vec<bool> = queries.iter().map(is_newest_down).collect();
        for query in &mut queries {
            if self.fault == Fault::MatchesAShorterPrefix && query.prefix.len() > 1 {
                query.prefix.truncate(query.prefix.len() - 1);
            }
            if self.fault == Fault::PrefersTheLastOfAKeyGoingDown && is_newest_down(query) {
                query.select = Select::All;
            }
        }
        let mut answers = self.inner.query_each(replica, queries).await?;
        if self.fault == Fault::PrefersTheLastOfAKeyGoingDown {
            for (entries, _) in answers.iter_mut().zip(down).filter(|(_, down)| *down) {
                entries.reverse();
                entries.dedup_by(|a, b| a.entry.op.key_bytes() == b.entry.op.key_bytes());
                entries.reverse();
            }
        }
        if self.fault == Fault::AnswersTheLastQueryFirst {
            answers.reverse();
        }
        Ok(answers)
    }

    async fn summary(&self, replica: ReplicaId, mut range: SlotRange) -> Result<Summary, StoreError> {
        if self.fault == Fault::SumsFromTheStart {
            range.start = SlotRange::ALL.start;
        }
        self.inner.summary(replica, range).await
    }

    async fn scope_summary(&self, replica: ReplicaId, scope: Scope) -> Result<Summary, StoreError> {
        self.inner.scope_summary(replica, scope).await
    }

    async fn split(
        &self,
        replica: ReplicaId,
        range: SlotRange,
        parts: usize,
    ) -> Result<Vec<(SlotRange, Summary)>, StoreError> {
        let mut split = self.inner.split(replica, range, parts).await?;
        if self.fault == Fault::LeavesOutTheLastPart && split.len() > 1 {
            split.pop();
        }
        Ok(split)
    }

    async fn log(&self, replica: ReplicaId, since: Position, limit: usize) -> Result<Vec<LogEntry>, StoreError> {
        let mut log = self.inner.log(replica, since, limit).await?;
        if self.fault == Fault::ListsTheLogBackwards {
            log.reverse();
        }
        Ok(log)
    }

    async fn changes(&self, mut request: ChangesRequest) -> Result<Changes, StoreError> {
        match self.fault {
            Fault::TearsCommits => request.max_bytes /= 8,
            Fault::EchoesToThePeer => request.not_from = None,
            Fault::IgnoresTheScope => request.scope = Scope::all(),
            _ => {}
        }
        let mut changes = self.inner.changes(request).await?;
        if self.fault == Fault::SendsNoProofs {
            changes.bundles.iter_mut().for_each(|bundle| bundle.proof.clear());
        }
        Ok(changes)
    }

    async fn first_claims(&self, replica: ReplicaId, scope: Scope) -> Result<Vec<Claim>, StoreError> {
        let mut claims = self.inner.first_claims(replica, scope).await?;
        if self.fault == Fault::ForgetsAClaim && claims.len() > 1 {
            claims.pop();
        }
        Ok(claims)
    }

    async fn reconcile(&self, replica: ReplicaId, scope: Scope, claims: Vec<Claim>) -> Result<Reconciled, StoreError> {
        let scope = if self.fault == Fault::IgnoresTheScope { Scope::all() } else { scope };
        if self.fault == Fault::TakesAnyNumberOfClaims {
            let mut all = Reconciled::default();
            for message in claims.chunks(256) {
                let answer = self.inner.reconcile(replica, scope.clone(), message.to_vec()).await?;
                all.claims.extend(answer.claims);
                all.missing.extend(answer.missing);
            }
            return Ok(all);
        }
        self.inner.reconcile(replica, scope, claims).await
    }

    async fn coded(&self, replica: ReplicaId, since: Position, count: usize) -> Result<Option<CodedSet>, StoreError> {
        let mut coded = self.inner.coded(replica, since, count).await?;
        match (self.fault, &mut coded) {
            (Fault::CodesWhatIsNotThere, Some(coded)) => coded.insert(&ShortId([1; 16])),
            (Fault::CodesLess, Some(coded)) => coded.shrink(),
            _ => {}
        }
        Ok(coded)
    }

    async fn find(&self, replica: ReplicaId, ids: Vec<ShortId>) -> Result<Found, StoreError> {
        let mut found = self.inner.find(replica, ids).await?;
        if self.fault == Fault::FindsLess {
            found.missing.pop();
        }
        Ok(found)
    }

    async fn missing(
        &self,
        replica: ReplicaId,
        scope: Scope,
        mut missing: Vec<Missing>,
        max_bytes: usize,
    ) -> Result<MissingPage, StoreError> {
        let scope = if self.fault == Fault::IgnoresTheScope { Scope::all() } else { scope };
        if self.fault == Fault::SendsWhatTheOtherHas {
            missing.iter_mut().for_each(|missing| missing.except.clear());
            return self.inner.missing(replica, scope, missing, usize::MAX).await;
        }
        self.inner.missing(replica, scope, missing, max_bytes).await
    }

    async fn node_records(&self, kind: NodeKind) -> Result<Vec<NodeRecord>, StoreError> {
        let mut records = self.inner.node_records(kind).await?;
        if self.fault == Fault::MixesTheKinds {
            records.extend(self.inner.node_records(NodeKind::Peer).await?);
        }
        Ok(records)
    }

    async fn save(&self, records: Vec<NodeRecord>) -> Result<(), StoreError> {
        self.inner.save(records).await
    }

    async fn close(&self) {
        if self.fault != Fault::StaysOpen {
            self.inner.close().await;
        }
    }
}

#[async_trait::async_trait]
impl ContentStore for WrongStore {
    async fn content_status(&self, hash: Hash) -> Result<ContentStatus, StoreError> {
        self.inner.content_status(hash).await
    }

    async fn import_path(&self, path: PathBuf, progress: OnProgress) -> Result<Imported, StoreError> {
        self.inner.import_path(path, progress).await
    }

    async fn import_paths(&self, paths: Vec<PathBuf>) -> Result<Vec<Result<Imported, StoreError>>, StoreError> {
        self.inner.import_paths(paths).await
    }

    async fn import_bytes(&self, bytes: Bytes) -> Result<Imported, StoreError> {
        self.inner.import_bytes(bytes).await
    }

    async fn reader(&self, hash: Hash) -> Result<Option<Reader>, StoreError> {
        self.inner.reader(hash).await
    }

    async fn held_reader(&self, replica: ReplicaId, hash: Hash) -> Result<Option<Reader>, StoreError> {
        match self.fault {
            Fault::HoldsWhatIsHere => self.inner.reader(hash).await,
            _ => self.inner.held_reader(replica, hash).await,
        }
    }

    async fn wants(&self, after: Option<Want>, limit: usize) -> Result<Vec<Want>, StoreError> {
        self.inner.wants(after, limit).await
    }

    async fn count_wants(&self, replica: ReplicaId, limit: u64) -> Result<u64, StoreError> {
        self.inner.count_wants(replica, limit).await
    }

    async fn references(
        &self,
        replica: ReplicaId,
        hash: Hash,
        scope: Scope,
        limit: usize,
    ) -> Result<Vec<Key>, StoreError> {
        let scope = if self.fault == Fault::IgnoresTheScope { Scope::all() } else { scope };
        self.inner.references(replica, hash, scope, limit).await
    }

    async fn begin_download(&self, hash: Hash, len: u64) -> Result<Begun, StoreError> {
        self.inner.begin_download(hash, len).await
    }

    async fn checkpoint_download(&self, download: Arc<Download>) -> Result<(), StoreError> {
        self.inner.checkpoint_download(download).await
    }

    async fn finish_downloads(&self, downloads: Vec<Arc<Download>>) -> Result<(), StoreError> {
        self.inner.finish_downloads(downloads).await
    }

    async fn hold_content(&self, replica: ReplicaId, hash: Hash) -> Result<bool, StoreError> {
        self.inner.hold_content(replica, hash).await
    }

    async fn content_damaged(&self, hash: Hash) -> Result<(), StoreError> {
        self.inner.content_damaged(hash).await
    }

    async fn collect_content(&self) -> Result<u64, StoreError> {
        self.inner.collect_content().await
    }
}

/// Expects that a case fails on a store with a fault.
fn caught<F: Future<Output = ()>>(fault: Fault, case: impl FnOnce(&'static Wrong) -> F) {
    let harness: &'static Wrong = Box::leak(Box::new(Wrong { fault, engine: MemEngine::default() }));
    if catch_unwind(AssertUnwindSafe(|| block_on(case(harness)))).is_ok() {
        // The hook keeps panics quiet.
        eprintln!("a store with the fault {fault:?} passes the case that should catch it");
        panic!("{fault:?} was not caught");
    }
}

#[test]
fn each_wrong_store_fails_the_matching_case() {
    // The panics of the cases are what is wanted: they need not be shown.
    std::panic::set_hook(Box::new(|_| ()));
    caught(Fault::ForgetsWhenClosed, apply::b50_apply_is_durable);
    caught(Fault::AppliesBundlesOneByOne, apply::b54_apply_is_atomic);
    caught(Fault::AnswersOutcomesBackwards, apply::apply_answers_each_entry);
    caught(Fault::TakesOnlyWhatIsNewerThanItsHead, history::the_result_does_not_depend_on_the_order_of_arrival);
    caught(Fault::SaysDominatedForRefused, apply::rights_are_checked_on_every_entry);
    caught(Fault::TakesTheFuture, apply::entries_from_the_future_wait);
    caught(Fault::SavesTheRecordsOfAFailedApply, apply::b51_a_failed_apply_changes_nothing);
    caught(Fault::LosesAWrite, apply::concurrent_applies_are_all_there);
    caught(Fault::GetsTheOldestAuthor, read::get_answers_the_newest_value_across_authors);
    caught(Fault::PrefersTheLastOfAKeyGoingDown, read::b56_a_querys_winner_does_not_depend_on_its_direction);
    caught(Fault::MatchesAShorterPrefix, read::b50_prefixes_are_byte_prefixes);
    caught(Fault::AnswersTheLastQueryFirst, read::queries_that_are_asked_together_answer_in_their_order);
    caught(Fault::SumsFromTheStart, read::summary_equals_recomputation_and_split_covers);
    caught(Fault::LeavesOutTheLastPart, read::summary_equals_recomputation_and_split_covers);
    caught(Fault::ListsTheLogBackwards, log::the_change_log_has_one_row_per_live_entry);
    caught(Fault::SendsNoProofs, log::changes_prove_what_they_send);
    caught(Fault::TearsCommits, log::a_commit_that_fits_is_never_torn);
    caught(Fault::EchoesToThePeer, log::changes_leave_out_what_came_from_the_peer_and_what_is_outside);
    caught(Fault::IgnoresTheScope, log::changes_leave_out_what_came_from_the_peer_and_what_is_outside);
    caught(Fault::IgnoresTheScope, reconcile::reconciliation_stays_inside_the_scope);
    caught(Fault::SendsWhatTheOtherHas, reconcile::reconciliation_finds_every_difference);
    caught(Fault::SendsWhatTheOtherHas, reconcile::many_authors_at_one_key_are_reconciled);
    caught(Fault::ForgetsAClaim, reconcile::reconciliation_finds_every_difference);
    caught(Fault::CodesWhatIsNotThere, reconcile::coded_symbols_are_of_what_is_there);
    caught(Fault::CodesLess, reconcile::coded_symbols_are_of_what_is_there);
    caught(Fault::FindsLess, reconcile::entries_are_found_by_their_ids);
    caught(Fault::TakesAnyNumberOfClaims, reconcile::claims_out_of_order_or_too_many_are_refused);
    caught(Fault::ChangesItsId, apply::the_store_id_stays);
    caught(Fault::DropsNothing, apply::b55_a_dropped_replica_leaves_nothing);
    caught(Fault::CreatesWhatIsAskedFor, apply::an_unknown_replica_is_an_error);
    caught(Fault::CreatesAgain, apply::creating_again_changes_nothing);
    caught(Fault::SavesTheRecordsOfAFailedApply, apply::records_of_a_refused_local_batch_are_not_kept);
    caught(Fault::MixesTheKinds, apply::b45_records_are_kept_by_kind_and_name);
    caught(Fault::StaysOpen, apply::a_closed_store_refuses);
    caught(Fault::HoldsWhatIsHere, content::b64_a_replica_holds_what_was_written_into_it_or_came_for_it);
    caught(Fault::IgnoresTheScope, content::references_stay_inside_the_scope);
}
