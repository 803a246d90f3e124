//! Cases about the change log.

use super::{
    StoreHarness,
    world::{World, delete, delete_prefix, peer, put},
};
use crate::{
    model::{Bundle, Prefix, ReadScope, VerifiedBundle, Verifier},
    store::{Changes, ChangesRequest, Origin, Position, ReplicaStore, Scope},
};

fn request(world: &World, since: u64, max_bytes: usize) -> ChangesRequest {
    ChangesRequest { replica: world.replica, since: Position(since), not_from: None, scope: Scope::all(), max_bytes }
}

fn verified(world: &World, bundles: Vec<Bundle>) -> Vec<VerifiedBundle> {
    let mut verifier = Verifier::default();
    bundles.into_iter().map(|b| b.verify(world.replica, &mut verifier).expect("what is sent is proved")).collect()
}

/// All pages of a request, each within its size.
async fn pages(store: &dyn ReplicaStore, mut request: ChangesRequest) -> Vec<Changes> {
    let head = store.state(request.replica).await.expect("state").head;
    let mut pages = Vec::new();
    while request.since < head {
        let page = store.changes(request.clone()).await.expect("changes");
        assert!(page.through > request.since, "each page goes on");
        assert_eq!(page.entries, page.bundles.iter().map(|bundle| bundle.items.len() as u64).sum::<u64>());
        let len = postcard::to_allocvec(&page.bundles).expect("bundles can be encoded").len();
        assert!(page.entries <= 1 || len <= request.max_bytes + 16, "{len} bytes, {} asked for", request.max_bytes);
        request.since = page.through;
        pages.push(page);
    }
    pages
}

/// In the order of acceptance; positions grow, and what was replaced is not there any more.
pub async fn the_change_log_has_one_row_per_live_entry<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let ops = vec![put("b", "1"), put("a", "2"), put("c", "3")];
    let applied = world.apply(&*store, vec![world.commit(0, -90, ops)]).await;
    let names = async || {
        let log = store.log(world.replica, Position(0), 100).await.expect("log");
        assert!(log.windows(2).all(|pair| pair[0].position < pair[1].position));
        log.iter().map(|entry| entry.entry.op.key_bytes().escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names().await, ["b", "a", "c"], "as they were written");
    world.apply(&*store, vec![world.commit(0, -80, vec![put("b", "4")])]).await;
    assert_eq!(names().await, ["a", "c", "b"]);
    world.apply(&*store, vec![world.commit(0, -70, vec![delete("a"), delete_prefix("c")])]).await;
    assert_eq!(names().await, ["b", "a", "c"]);
    let later = store.log(world.replica, applied.state.head, 2).await.expect("log");
    assert_eq!(later.len(), 2);
    assert!(later.iter().all(|entry| entry.position > applied.state.head));
    assert_eq!(later[0].origin, Origin::Peer(peer(1)));
    let head = store.state(world.replica).await.expect("state").head;
    assert_eq!(store.log(world.replica, head, 9).await.expect("log"), []);
    assert_eq!(store.log(world.replica, Position(u64::MAX), 9).await.expect("log"), []);
}

/// A node that has never seen any of it can verify all of it, though most of a commit is gone.
pub async fn changes_prove_what_they_send<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let ops = |from: usize| (from..from + 100).map(|n| put(&format!("{n:03}"), "value")).collect();
    world.apply(&*store, vec![world.commit(0, -9_000, ops(0)), world.commit(0, -8_000, ops(50))]).await;
    // 000 to 049 are left of the first commit; then only some of those.
    world.apply(&*store, vec![world.commit(0, -7_000, vec![delete_prefix("01"), delete_prefix("03")])]).await;
    for max_bytes in [1, 500, 3_000, 1 << 20] {
        let other = world.create(harness.another()).await;
        for page in pages(&*store, request(&world, 0, max_bytes)).await {
            world.apply(&*other, verified(&world, page.bundles)).await;
        }
        let (a, b) = (store.state(world.replica).await, other.state(world.replica).await);
        assert_eq!(a.expect("state").root, b.expect("state").root, "pages of {max_bytes}");
        // And from there to a third: what was learned in parts proves as well.
        let third = world.create(harness.another()).await;
        for page in pages(&*other, request(&world, 0, max_bytes)).await {
            world.apply(&*third, verified(&world, page.bundles)).await;
        }
        let (a, b) = (other.state(world.replica).await, third.state(world.replica).await);
        assert_eq!(a.expect("state").root, b.expect("state").root, "pages of {max_bytes}, second hand");
    }
}

/// A commit that fits in a page travels in one, as one bundle without a proof.
pub async fn a_commit_that_fits_is_never_torn<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    for n in 0..20usize {
        let ops = (0..10).map(|m| put(&format!("{:02}/{m}", n * 7 % 20), &"v".repeat(n * 10))).collect();
        world.apply(&*store, vec![world.commit(0, n as i64 * 100, ops)]).await;
    }
    for max_bytes in [2_600, 4_000, 10_000] {
        for page in pages(&*store, request(&world, 0, max_bytes)).await {
            for bundle in page.bundles {
                assert_eq!((bundle.items.len(), bundle.seal.count), (10, 10), "torn in pages of {max_bytes}");
                assert!(bundle.proof.is_empty());
            }
        }
    }
    let torn = pages(&*store, request(&world, 0, 900)).await;
    assert!(torn.iter().any(|page| page.bundles.iter().any(|bundle| bundle.items.len() < 10)));
    assert_eq!(torn.iter().map(|page| page.entries).sum::<u64>(), 200, "torn where it does not fit, and complete");
}

/// What came from the peer is not sent back to it; what is outside the scope is not sent at all.
pub async fn changes_leave_out_what_came_from_the_peer_and_what_is_outside<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let one = |at, op| vec![world.commit(0, at, vec![op])];
    for (at, op, origin) in [
        (1, put("a/1", ""), Origin::Local),
        (2, put("a/2", ""), Origin::Peer(peer(1))),
        (3, put("b/1", ""), Origin::Peer(peer(2))),
        (4, delete_prefix("a/1/"), Origin::Peer(peer(2))),
        (5, delete_prefix("b"), Origin::Peer(peer(2))),
        (6, put("b/2", ""), Origin::Peer(peer(1))),
    ] {
        world.try_apply(&*store, one(at, op), origin, Vec::new()).await.expect("applied");
    }
    let keys = async |not_from, prefix: Option<&'static str>| {
        let scope = match prefix {
            None => Scope::all(),
            Some(prefix) => Scope::of(&ReadScope { prefixes: vec![Prefix::new(prefix).expect("short")] }),
        };
        let changes = ChangesRequest { not_from, scope, ..request(&world, 0, 1 << 20) };
        let changes = store.changes(changes).await.expect("changes");
        assert_eq!(changes.through, store.state(world.replica).await.expect("state").head, "all of the log was read");
        let items = changes.bundles.iter().flat_map(|bundle| &bundle.items);
        items.map(|item| item.op.key_bytes().escape_ascii().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(keys(None, None).await, ["a/1", "a/2", "a/1/", "b", "b/2"]);
    assert_eq!(keys(Some(peer(1)), None).await, ["a/1", "a/1/", "b"]);
    assert_eq!(keys(Some(peer(2)), None).await, ["a/1", "a/2", "b/2"]);
    assert_eq!(keys(Some(peer(9)), None).await.len(), 5);
    assert_eq!(keys(None, Some("a/")).await, ["a/1", "a/2", "a/1/"]);
    // A tombstone of a shorter prefix covers keys inside, so it is inside.
    assert_eq!(keys(None, Some("b/")).await, ["b", "b/2"]);
    assert_eq!(keys(Some(peer(1)), Some("b/")).await, ["b"]);
}

/// The version is another after each change of rights, and the replica's own; other entries leave it.
pub async fn changes_say_by_which_rights_they_were_read<H: StoreHarness>(harness: &H) {
    let world = World::default();
    let store = world.create(harness.open()).await;
    let version = async || {
        let changes = store.changes(request(&world, 0, 1 << 20)).await.expect("changes");
        let state = store.state(world.replica).await.expect("state");
        assert_eq!(changes.rights_version, state.rights_version);
        state.rights_version
    };
    let first = version().await;
    world.apply(&*store, vec![world.commit(0, -90, vec![put("a", "1")])]).await;
    assert_eq!(version().await, first);
    let mut seen = vec![first];
    for grant in world.grants() {
        let applied = world.apply(&*store, vec![grant.clone()]).await;
        assert!(!seen.contains(&version().await), "{seen:?}");
        assert_eq!(applied.state.rights_version, version().await);
        world.apply(&*store, vec![grant]).await;
        assert_eq!(applied.state.rights_version, version().await, "it was here already");
        seen.push(version().await);
    }
}
