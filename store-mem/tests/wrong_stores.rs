//! The suite can fail: each deliberately wrong store is caught by the case of the sentence it breaks.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use store_mem::MemEngine;
use sync_core::{
    model::{Hash, Key, Op, ReplicaId, SlotRange, Summary, Timestamp, Value},
    store::{coded::CodedSet, *},
    testing::{
        block_on,
        store_suite::{CASES, StoreHarness, apply, content, history, log, read, reconcile},
    },
};

/// What a store does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// None.
    Nothing,
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
    KeepsTheRightsVersion,
    SendsWhatTheOtherHas,
    ForgetsAClaim,
    TakesAnyNumberOfClaims,
    LeavesClaimsOutInSilence,
    CodesWhatIsNotThere,
    CodesLess,
    FindsLess,
    ChangesItsId,
    DropsNothing,
    NumbersAnew,
    CreatesWhatIsAskedFor,
    CreatesAgain,
    MixesTheKinds,
    StaysOpen,
    HoldsWhatIsHere,
    ForgetsContentWhenClosed,
    ForgetsWantsWhenClosed,
    ForgetsCheckpoints,
    ForgetsTheOlderVersion,
    CollectsNothing,
    CollectsWhatIsAboutToBeReferredTo,
    PrefersTheFirstOfATime,
    CutsLengths,
    ProvesRangesApart,
    CountsReplays,
    LetsWhatANewVersionStandsOnGo,
}

struct Wrong {
    fault: Fault,
    engine: MemEngine,
    content: ContentDir,
}

impl StoreHarness for Wrong {
    fn open(&self) -> Arc<dyn ReplicaStore> {
        match self.fault {
            Fault::ForgetsWhenClosed | Fault::ChangesItsId => self.another(),
            _ => {
                let content = match self.fault {
                    Fault::ForgetsContentWhenClosed => ContentDir::in_memory(),
                    _ => self.content.clone(),
                };
                let store = EngineStore::open_beside(self.engine.clone(), content).expect("memory can be opened");
                self.wrap(Arc::new(store))
            }
        }
    }

    fn another(&self) -> Arc<dyn ReplicaStore> {
        self.wrap(Arc::new(store_mem::open().expect("memory can be opened")))
    }
}

impl Wrong {
    fn new(fault: Fault) -> Self {
        Self { fault, engine: MemEngine::default(), content: ContentDir::in_memory() }
    }

    fn wrap(&self, inner: Arc<dyn ReplicaStore>) -> Arc<dyn ReplicaStore> {
        Arc::new(WrongStore {
            fault: self.fault,
            inner,
            applied: Mutex::default(),
            blobs: Mutex::default(),
            ended: Mutex::default(),
            standing: Mutex::default(),
            fell: Mutex::default(),
        })
    }
}

#[derive(Debug)]
struct WrongStore {
    fault: Fault,
    inner: Arc<dyn ReplicaStore>,
    applied: Mutex<usize>,
    /// How many blobs were ever applied.
    blobs: Mutex<u64>,
    /// Where the last replica ended that was dropped.
    ended: Mutex<u64>,
    /// What was imported over what.
    standing: Mutex<Vec<(Hash, Hash)>>,
    fell: Mutex<Vec<Hash>>,
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
        if self.fault == Fault::NumbersAnew {
            *self.ended.lock().expect("no case panics in here") = self.inner.state(replica).await?.head.0;
        }
        self.inner.drop_replica(replica, records).await
    }

    async fn state(&self, replica: ReplicaId) -> Result<ReplicaState, StoreError> {
        if self.fault == Fault::CreatesWhatIsAskedFor {
            self.inner.create_replica(replica, vec![]).await?;
        }
        let mut state = self.inner.state(replica).await?;
        state.head.0 -= *self.ended.lock().expect("no case panics in here");
        if self.fault == Fault::CountsReplays {
            state.blobs = *self.blobs.lock().expect("no case panics in here");
        }
        Ok(state)
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
            Fault::CountsReplays => {
                let entries = batch.bundles.iter().flat_map(|bundle| bundle.entries());
                let blobs = entries.filter(|entry| matches!(&entry.op, Op::Put { value: Value::Blob { .. }, .. }));
                *self.blobs.lock().expect("no case panics in here") += blobs.count() as u64;
            }
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
        let mut found = self.inner.get(replica, key.clone()).await?;
        if self.fault == Fault::PrefersTheFirstOfATime
            && let Some(newest) = &found
        {
            let query = Query { key: Some(key.as_bytes().clone()), select: Select::All, ..Query::default() };
            let all = self.inner.query(replica, query).await?;
            let of_that_time = all.into_iter().filter(|other| other.entry.timestamp == newest.entry.timestamp);
            found = of_that_time.min_by_key(|entry| entry.position);
        }
        if self.fault == Fault::CutsLengths
            && let Some(LogEntry { entry, .. }) = &mut found
            && let Op::Put { value: Value::Blob { len, .. }, .. } = &mut entry.op
        {
            *len &= u64::from(u32::MAX);
        }
        Ok(found)
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
        if self.fault == Fault::KeepsTheRightsVersion {
            changes.rights_version = 0;
        }
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
        let mut answer = self.inner.reconcile(replica, scope, claims).await?;
        if self.fault == Fault::LeavesClaimsOutInSilence {
            answer.is_cut = false;
        }
        Ok(answer)
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
        if self.fault == Fault::ProvesRangesApart {
            let mut all = MissingPage::default();
            for one in missing {
                let page = self.inner.missing(replica, scope.clone(), vec![one], max_bytes).await?;
                all.bundles.extend(page.bundles);
                all.entries += page.entries;
                all.rest.extend(page.rest);
            }
            return Ok(all);
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

    async fn import_path(
        &self,
        path: PathBuf,
        older: Option<Hash>,
        progress: OnProgress,
    ) -> Result<Imported, StoreError> {
        let imported = self.inner.import_path(path, older, progress).await?;
        if let Some(older) = older {
            self.standing.lock().expect("no case panics in here").push((imported.hash, older));
        }
        Ok(imported)
    }

    async fn import_paths(&self, paths: Vec<PathBuf>) -> Result<Vec<Result<Imported, StoreError>>, StoreError> {
        self.inner.import_paths(paths).await
    }

    async fn import_bytes(&self, bytes: Bytes) -> Result<Imported, StoreError> {
        let imported = self.inner.import_bytes(bytes).await?;
        if self.fault == Fault::CollectsWhatIsAboutToBeReferredTo {
            // What is held until there is an entry is something else.
            let Imported { hash, len, .. } = imported;
            let other = self.inner.import_bytes(Bytes::from_static(b"something else")).await?;
            while self.inner.collect_content().await? > 0 {}
            return Ok(Imported { hash, len, pin: other.pin });
        }
        Ok(imported)
    }

    async fn reader(&self, hash: Hash) -> Result<Option<Reader>, StoreError> {
        if self.fault == Fault::LetsWhatANewVersionStandsOnGo
            && self.fell.lock().expect("no case panics").contains(&hash)
        {
            return Ok(None);
        }
        self.inner.reader(hash).await
    }

    async fn held_reader(&self, replica: ReplicaId, hash: Hash) -> Result<Option<Reader>, StoreError> {
        match self.fault {
            Fault::HoldsWhatIsHere => self.inner.reader(hash).await,
            _ => self.inner.held_reader(replica, hash).await,
        }
    }

    async fn wants(&self, after: Option<Want>, limit: usize) -> Result<Vec<Want>, StoreError> {
        let mut wants = self.inner.wants(after, limit).await?;
        match self.fault {
            Fault::ForgetsTheOlderVersion => wants.iter_mut().for_each(|want| want.base = None),
            Fault::ForgetsWantsWhenClosed if *self.applied.lock().expect("no case panics in here") == 0 => {
                wants.clear();
            }
            _ => {}
        }
        Ok(wants)
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
        if self.fault == Fault::CreatesWhatIsAskedFor {
            self.inner.create_replica(replica, vec![]).await?;
        }
        self.inner.references(replica, hash, scope, limit).await
    }

    async fn begin_download(&self, hash: Hash, len: u64) -> Result<Begun, StoreError> {
        self.inner.begin_download(hash, len).await
    }

    async fn checkpoint_download(&self, download: Arc<Download>) -> Result<(), StoreError> {
        if self.fault == Fault::ForgetsCheckpoints {
            return Ok(());
        }
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
        if self.fault == Fault::CollectsNothing {
            return Ok(0);
        }
        // What nobody refers to goes with what is made from it.
        for (new, older) in self.standing.lock().expect("no case panics in here").drain(..) {
            self.fell.lock().expect("no case panics in here").extend([new, older]);
        }
        self.inner.collect_content().await
    }
}

async fn b50_random_histories_equal_the_reference_model(store: &Wrong) {
    history::random_history(store, 7, 2_000).await;
}

type Case = fn(&Wrong);

macro_rules! caught {
    ($($fault:ident in $case:path;)*) => {
        /// Each store that does something wrong, with the case that must fail on it.
        const WRONG: &[(Fault, &str, Case)] =
            &[$((Fault::$fault, stringify!($case), |store| block_on($case(store)))),*];
    };
}

caught! {
    ForgetsWhenClosed in apply::b50_apply_is_durable;
    AppliesBundlesOneByOne in apply::b54_apply_is_atomic;
    AnswersOutcomesBackwards in apply::apply_answers_each_entry;
    TakesOnlyWhatIsNewerThanItsHead in history::the_result_does_not_depend_on_the_order_of_arrival;
    SaysDominatedForRefused in apply::rights_are_checked_on_every_entry;
    TakesTheFuture in apply::entries_from_the_future_wait;
    SavesTheRecordsOfAFailedApply in apply::b51_a_failed_apply_changes_nothing;
    LosesAWrite in apply::concurrent_applies_are_all_there;
    GetsTheOldestAuthor in read::get_answers_the_newest_value_across_authors;
    PrefersTheLastOfAKeyGoingDown in read::b56_a_querys_winner_does_not_depend_on_its_direction;
    MatchesAShorterPrefix in read::b50_prefixes_are_byte_prefixes;
    AnswersTheLastQueryFirst in read::queries_that_are_asked_together_answer_in_their_order;
    SumsFromTheStart in read::summary_equals_recomputation_and_split_covers;
    LeavesOutTheLastPart in read::summary_equals_recomputation_and_split_covers;
    ListsTheLogBackwards in log::the_change_log_has_one_row_per_live_entry;
    SendsNoProofs in log::changes_prove_what_they_send;
    TearsCommits in log::a_commit_that_fits_is_never_torn;
    EchoesToThePeer in log::changes_leave_out_what_came_from_the_peer_and_what_is_outside;
    IgnoresTheScope in log::changes_leave_out_what_came_from_the_peer_and_what_is_outside;
    KeepsTheRightsVersion in log::changes_say_by_which_rights_they_were_read;
    IgnoresTheScope in reconcile::reconciliation_stays_inside_the_scope;
    SendsWhatTheOtherHas in reconcile::reconciliation_finds_every_difference;
    SendsWhatTheOtherHas in reconcile::many_authors_at_one_key_are_reconciled;
    ForgetsAClaim in reconcile::reconciliation_finds_every_difference;
    CodesWhatIsNotThere in reconcile::coded_symbols_are_of_what_is_there;
    CodesLess in reconcile::coded_symbols_are_of_what_is_there;
    FindsLess in reconcile::entries_are_found_by_their_ids;
    TakesAnyNumberOfClaims in reconcile::claims_out_of_order_or_too_many_are_refused;
    LeavesClaimsOutInSilence in reconcile::an_answer_that_leaves_claims_out_says_so;
    ChangesItsId in apply::the_store_id_stays;
    DropsNothing in apply::b55_a_dropped_replica_leaves_nothing;
    NumbersAnew in apply::b55_a_dropped_replica_leaves_nothing;
    CreatesWhatIsAskedFor in apply::an_unknown_replica_is_an_error;
    CreatesAgain in apply::creating_again_changes_nothing;
    SavesTheRecordsOfAFailedApply in apply::records_of_a_refused_local_batch_are_not_kept;
    MixesTheKinds in apply::b45_records_are_kept_by_kind_and_name;
    StaysOpen in apply::a_closed_store_refuses;
    HoldsWhatIsHere in content::b64_a_replica_holds_what_was_written_into_it_or_came_for_it;
    IgnoresTheScope in content::references_stay_inside_the_scope;
    ForgetsContentWhenClosed in content::imported_content_survives;
    ForgetsWantsWhenClosed in content::b70_a_want_is_as_durable_as_the_entry_that_wants;
    ForgetsCheckpoints in content::b70_a_download_goes_on_at_its_checkpoint;
    CollectsNothing in content::b72_unreferenced_content_is_collected;
    CollectsWhatIsAboutToBeReferredTo in content::b72_referenced_content_is_never_collected;
    ForgetsTheOlderVersion in content::an_older_version_is_not_collected_while_the_new_one_is_on_its_way;
    LetsWhatANewVersionStandsOnGo in content::an_import_over_an_older_version_is_whole_whatever_becomes_of_that;
    CreatesWhatIsAskedFor in content::reading_content_creates_nothing;
    PrefersTheFirstOfATime in read::b50_writers_in_the_same_microsecond_have_one_winner;
    CutsLengths in read::blobs_come_back;
    ProvesRangesApart in reconcile::what_ranges_that_overlap_have_in_common_is_proved;
    CountsReplays in apply::state_counts_blobs_and_bytes;
    GetsTheOldestAuthor in b50_random_histories_equal_the_reference_model;
}

#[test]
fn each_wrong_store_fails_the_matching_case() {
    // The panics of the cases are what is wanted: they need not be shown. The hook is every thread's.
    let shown = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let fails =
        |(fault, _, case): &&(Fault, &str, Case)| catch_unwind(AssertUnwindSafe(|| case(&Wrong::new(*fault)))).is_err();
    let passed: Vec<_> = WRONG.iter().filter(|wrong| !fails(wrong)).map(|(fault, case, _)| (fault, case)).collect();
    std::panic::set_hook(shown);
    assert!(passed.is_empty(), "stores that pass the case which should catch them: {passed:?}");
}

#[test]
fn every_case_of_the_suite_fails_on_some_wrong_store() {
    let caught: BTreeSet<&str> = WRONG.iter().map(|(_, case, _)| case.rsplit("::").next().expect("a name")).collect();
    let missing: Vec<_> = CASES.iter().filter(|case| !caught.contains(**case)).collect();
    assert!(missing.is_empty(), "no wrong store fails {missing:?}");
}

/// What the wrong stores are caught for is their fault, not what wraps them.
mod without_a_fault {
    use super::*;

    struct Right(Wrong);

    impl Default for Right {
        fn default() -> Self {
            Self(Wrong::new(Fault::Nothing))
        }
    }

    impl StoreHarness for Right {
        fn open(&self) -> Arc<dyn ReplicaStore> {
            self.0.open()
        }

        fn another(&self) -> Arc<dyn ReplicaStore> {
            self.0.another()
        }
    }

    sync_core::store_suite!(Right, 2_000);
}
