//! Somebody on the path who would like both to speak an older version.

use bytes::Bytes;
use sync_core::machine::wire::{Hello, Message};

use crate::common::*;

/// Connects two nodes while the hello of one is changed on its way, and encoded anew. Whether they were linked and synced.
fn with_hello(of: u8, change: fn(Hello) -> Hello) -> Pair {
    let mut pair = Pair::new();
    let owner = key(7);
    let id = pair.a.replica(1, &owner, 3);
    pair.b.replica(2, &owner, 3);
    pair.rewrites = Some(Box::new(move |from, frame: Bytes| match Message::decode(frame.clone()) {
        Ok(Some(Message::Hello(hello))) if from == of => Message::Hello(change(hello)).encode(),
        _ => frame,
    }));
    pair.subscribe(id);
    pair
}

fn refuses(node: &Node) -> bool {
    node.said.iter().any(|said| said.starts_with("Disconnect"))
}

/// The story: the ranges of versions are said before anything is proved. Whoever rewrites them could make two new nodes
/// speak an old version with a weakness, were they not under both proofs.
#[test]
fn b61_a_hello_whose_versions_were_rewritten_on_the_way_makes_no_link() {
    let changes: [fn(Hello) -> Hello; 3] = [
        // Still with a version in common, so that the proofs are what stops it.
        |hello| Hello { oldest: 0, ..hello },
        |hello| Hello { newest: 2, ..hello },
        |hello| Hello { oldest: 0, newest: 7, ..hello },
    ];
    for of in [1, 2] {
        for change in changes {
            let pair = with_hello(of, change);
            assert!(refuses(&pair.a) || refuses(&pair.b), "hello of {of}: {:?}", pair.a.said);
            assert!(!pair.a.heard_synced() && !pair.b.heard_synced(), "hello of {of}");
            assert_eq!(pair.opened(), 0, "no session is opened over such a link");
        }
        // The same hands on the frames, and nothing changed: what stops it is the change.
        let pair = with_hello(of, |hello| hello);
        assert!(pair.a.heard_synced() && pair.b.heard_synced(), "hello of {of}: {:?}", pair.a.said);
        assert!(!refuses(&pair.a) && !refuses(&pair.b));
    }
}
