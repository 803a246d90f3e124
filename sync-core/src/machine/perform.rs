//! What every driver does with a [`StoreRequest`]: no decision is in it.

use super::{
    io::{Step, StoreReply, StoreRequest, WorkError},
    limits::*,
    wire::{RefusalReason, decode_bundles, encode_bundles},
};
use crate::{
    model::{
        Bundle, PublicKey, ReplicaId, Right, Rights, Timestamp, VerifiedBundle, Verifier, grant_key, grant_of_key,
    },
    store::{
        Apply, Changes, Missing, MissingPage, Origin, Outcome, Position, ReplicaStore, Scope, ShortId, StoreError,
        coded::{Difference, difference},
    },
};

/// Performs `request` on `store`.
pub async fn perform(store: &dyn ReplicaStore, request: StoreRequest) -> Result<StoreReply, WorkError> {
    match request {
        StoreRequest::Prepare { replica, peer, admit, credentials_of, now } => {
            let (mut state, mut admitted) = (store.state(replica).await?, 0);
            if !admit.iter().all(|bundle| is_known(&state.rights, bundle)) {
                let bundles = verify_credentials(replica, admit)?;
                let batch = Apply { replica, bundles, origin: Origin::Peer(peer), now, records: Vec::new() };
                let applied = store.apply(batch).await?;
                (admitted, state) = (applied.inserted(), applied.state);
            }
            let (readable, root) = loop {
                let readable = state.rights.readable(&peer, now);
                let scope = Scope::of(&readable);
                if scope.is_all() {
                    break (readable, state.root);
                }
                let root = store.scope_summary(replica, scope).await?.digest();
                // A root of entries that came with other rights is none of this scope.
                let after = store.state(replica).await?;
                if after.rights_version == state.rights_version {
                    break (readable, root);
                }
                state = after;
            };
            let credentials = match credentials_of {
                Some(key) => credentials(store, &state.rights, key, now).await?,
                None => Vec::new(),
            };
            Ok(StoreReply::Prepared { state, admitted, readable, root, credentials })
        }
        StoreRequest::Changes { request, rights_version } => {
            let replica = request.replica;
            let changes = store.changes(request).await?;
            let payload = encode_bundles(&changes.bundles);
            let state = match changes.rights_version == rights_version {
                true => None,
                false => Some(store.state(replica).await?),
            };
            Ok(StoreReply::Changes { payload, changes: Changes { bundles: Vec::new(), ..changes }, state })
        }
        StoreRequest::Verify { replica, payloads } => {
            let mut decoded = Vec::new();
            for payload in payloads {
                decoded.extend(decode_bundles(&payload).map_err(|error| WorkError::Invalid(error.to_string()))?);
            }
            Ok(StoreReply::Verified { bundles: verify_all(replica, decoded)? })
        }
        StoreRequest::Apply { replica, bundles, peer, now, records } => {
            let ids: Vec<ShortId> =
                bundles.iter().flat_map(VerifiedBundle::entries).map(|entry| (&entry.order.hash).into()).collect();
            let applied = store.apply(Apply { replica, bundles, origin: Origin::Peer(peer), now, records }).await?;
            let mut refused: Vec<_> = ids
                .into_iter()
                .zip(&applied.outcomes)
                .filter_map(|(id, outcome)| match outcome {
                    Outcome::Refused(_) => Some((id, RefusalReason::Rights)),
                    Outcome::Future => Some((id, RefusalReason::Future)),
                    Outcome::Inserted { .. } | Outcome::Dominated | Outcome::Present => None,
                })
                .collect();
            let refused_count = refused.len() as u64;
            // Only the first are told: those that are to be offered again must be among them.
            refused.sort_by_key(|(_, reason)| *reason != RefusalReason::Future);
            Ok(StoreReply::Applied {
                inserted: applied.inserted(),
                state: applied.state,
                refused: refused.into_iter().take(MAX_REFUSALS).collect(),
                refused_count,
                rights_changed: applied.rights_changed,
            })
        }
        StoreRequest::Lead { replica, scope, by_symbols } => {
            let mine = match by_symbols {
                Some((since, count)) if scope.is_all() => store.coded(replica, since, count).await?,
                _ => None,
            };
            let step = match by_symbols.filter(|_| mine.is_some()) {
                Some((_, count)) => Step::Symbols(count),
                None => Step::Claims(store.first_claims(replica, scope).await?),
            };
            Ok(StoreReply::Step { mine, step, missing: Vec::new() })
        }
        StoreRequest::Code { replica, since, count } => {
            store.coded(replica, since, count).await?;
            Ok(StoreReply::Saved)
        }
        StoreRequest::Solve { replica, scope, mine, since, theirs } => {
            let mine = match mine.filter(|mine| mine.symbols().len() >= theirs.len()) {
                None if scope.is_all() => store.coded(replica, since, theirs.len()).await?,
                mine => mine,
            };
            let (step, missing) = match mine.as_ref().map(|mine| difference(mine, &theirs)) {
                Some(Difference::Known { mine, theirs }) => {
                    let found = store.find(replica, mine).await?;
                    match found.is_complete {
                        true => (Step::Lacking(theirs), found.missing),
                        false => (Step::Claims(store.first_claims(replica, scope).await?), Vec::new()),
                    }
                }
                Some(Difference::Larger(symbols)) => (Step::More(symbols), Vec::new()),
                Some(Difference::TooLarge) | None => {
                    (Step::Claims(store.first_claims(replica, scope).await?), Vec::new())
                }
            };
            Ok(StoreReply::Step { mine, step, missing })
        }
        StoreRequest::Find { replica, scope, ids } => {
            let found = store.find(replica, ids).await?;
            let (step, missing) = match found.is_complete {
                true => (Step::Found, found.missing),
                false => (Step::Claims(store.first_claims(replica, scope).await?), Vec::new()),
            };
            Ok(StoreReply::Step { mine: None, step, missing })
        }
        StoreRequest::Reconcile { replica, scope, claims } => {
            let state = store.state(replica).await?;
            let reconciled = store.reconcile(replica, scope, claims).await?;
            Ok(StoreReply::Reconciled { reconciled, state })
        }
        StoreRequest::ScopeRoot { replica, scope } => {
            let head = store.state(replica).await?.head;
            let root = store.scope_summary(replica, scope).await?.digest();
            let still = store.state(replica).await?.head == head;
            Ok(StoreReply::ScopeRoot { head: still.then_some(head), root })
        }
        StoreRequest::Missing { replica, scope, missing, max_bytes } => {
            let page = store.missing(replica, scope, missing, max_bytes).await?;
            let payload = encode_bundles(&page.bundles);
            Ok(StoreReply::Missing { payload, page: MissingPage { bundles: Vec::new(), ..page } })
        }
        StoreRequest::Save { records } => {
            store.save(records).await?;
            Ok(StoreReply::Saved)
        }
    }
}

/// How many signatures are worth a thread: a check costs 36 microseconds, a thread about 20.
const SIGNATURES_PER_THREAD: usize = 32;

/// Whether this thread runs a simulation: all of one happens on one thread.
fn is_simulated() -> bool {
    #[cfg(any(test, feature = "testing"))]
    return crate::model::stand_in::is_on();
    #[cfg(not(any(test, feature = "testing")))]
    false
}

/// Verifies on as many cores as the number of bundles is worth, keeping their order.
fn verify_all(replica: ReplicaId, mut bundles: Vec<Bundle>) -> Result<Vec<VerifiedBundle>, WorkError> {
    let cores = if is_simulated() { 1 } else { std::thread::available_parallelism().map_or(1, usize::from) };
    let threads = cores.min(bundles.len() / SIGNATURES_PER_THREAD).max(1);
    let part = bundles.len().div_ceil(threads).max(1);
    let mut parts = Vec::with_capacity(threads);
    while bundles.len() > part {
        parts.push(bundles.split_off(bundles.len() - part));
    }
    let check = |bundles: Vec<Bundle>| {
        let mut verified = Vec::with_capacity(bundles.len());
        verify(replica, bundles, &mut Verifier::default(), &mut verified).map(|()| verified)
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = parts.into_iter().rev().map(|part| scope.spawn(move || check(part))).collect();
        let mut verified = check(bundles)?;
        for other in others {
            verified.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(verified)
    })
}

fn verify(
    replica: ReplicaId,
    bundles: Vec<Bundle>,
    verifier: &mut Verifier,
    into: &mut Vec<VerifiedBundle>,
) -> Result<(), WorkError> {
    for bundle in bundles {
        into.push(bundle.verify(replica, verifier).map_err(|error| WorkError::Invalid(error.to_string()))?);
    }
    Ok(())
}

/// Whether a bundle is of grants that are here already: nothing needs to be verified or written then.
fn is_known(rights: &Rights, bundle: &Bundle) -> bool {
    bundle.items.iter().all(|item| grant_of_key(item.op.key_bytes()).is_some_and(|id| rights.contains(&id)))
}

/// Credentials are system entries and nothing else: nobody writes before he may.
fn verify_credentials(replica: ReplicaId, admit: Vec<Bundle>) -> Result<Vec<VerifiedBundle>, WorkError> {
    if admit.iter().any(|bundle| bundle.items.iter().any(|item| !item.op.is_system())) {
        return Err(WorkError::Invalid("its credentials hold entries that are none".into()));
    }
    let mut bundles = Vec::new();
    verify(replica, admit, &mut Verifier::default(), &mut bundles)?;
    Ok(bundles)
}

/// The chain of grants by which `key` may read, as bundles for somebody who does not know it.
pub(crate) async fn credentials(
    store: &dyn ReplicaStore,
    rights: &Rights,
    key: PublicKey,
    now: Timestamp,
) -> Result<Vec<Bundle>, StoreError> {
    let Some((id, _)) = rights.best_grant(&key, Right::Read, now) else { return Ok(Vec::new()) };
    let mut bundles = Vec::new();
    for (id, ..) in rights.chain(id) {
        let start = crate::model::SlotKey::of_key(&grant_key(&id));
        let mut end = start.as_bytes().to_vec();
        end.push(0);
        let range = crate::model::SlotRange { start, end: Some(crate::model::SlotKey::from_bytes(end)) };
        let missing = vec![Missing { range, except: Vec::new(), until: Position::LAST }];
        let page = store.missing(rights.replica(), Scope::all(), missing, ENTRIES_FRAME_LEN).await?;
        bundles.extend(page.bundles);
    }
    bundles.truncate(MAX_CREDENTIALS);
    Ok(bundles)
}
